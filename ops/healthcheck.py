"""Ends with 0 when the dapi of this container lives, and with 1 when not: for the HEALTHCHECK of ops/Containerfile.

It asks the admin port, with TLS or without. Nobody checks the certificate: the question stays in the container.
"""

import http.client
import os
import ssl
import sys
import urllib.request

PORT = os.environ.get("DAPI_API__ADMIN_SERVER_PORT", "9200")
UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE
# Never by way of a proxy of the environment.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=UNCHECKED))

for scheme in ("http", "https"):
    try:
        with OPENER.open(f"{scheme}://127.0.0.1:{PORT}/healthz", timeout=4):
            sys.exit(0)
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{scheme}: {error}\n")
sys.exit(1)
