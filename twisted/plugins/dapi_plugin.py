"""What ``twistd`` finds: dotted names only, so that looking for plugins imports nothing of dapi, Klein least of all."""

from twisted.application.service import ServiceMaker

dapi = ServiceMaker(
    name="dapi",
    module="dapi.tap",
    description="Takes PoW batches from ML nodes and hands them to the chain.",
    tapname="dapi",
)
