"""Whether a server of this container answers, for health checks: python -m deploy.health URL."""

import sys
import urllib.request

if __name__ == "__main__":
    urllib.request.urlopen(sys.argv[1], timeout=5).close()  # noqa: S310
