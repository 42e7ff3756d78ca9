"""An ML node's HTTP API: MLNodeClient (client.py) has one method for each call, and knows no more than one node.

Facts: docs/protocol/node.md, 'HTTP API', 'Status of PoW' and 'Init request'.
"""
