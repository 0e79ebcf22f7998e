#!/bin/sh
# Gathers below /sandbox all that the sandbox's image shall have: the C library, Python, and the packages in
# /opt/headgate. No shell and no tools; what is not there cannot be used against us.
set -eu
python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
prefix=$(python3 -c 'import sys; print(sys.base_prefix)')

# What Docker mounts takes the rights of the folder that it is mounted on.
mkdir -p /sandbox/usr /sandbox/etc /sandbox/headgate/sandbox /sandbox/headgate/packages
mkdir -p /sandbox/in /sandbox/out /sandbox/tmp
for folder in /lib /lib64 /usr/lib /usr/lib64; do
    [ ! -e "$folder" ] || cp -a "$folder" "/sandbox$folder"
done
[ "$prefix" = /usr ] || { mkdir -p "/sandbox$prefix" && cp -a "$prefix/lib" "/sandbox$prefix/lib"; }
mkdir -p "/sandbox$(dirname "$python")"
cp "$python" "/sandbox$python"
cp /etc/ld.so.cache /sandbox/etc/
mv /opt/headgate/site /sandbox/headgate/site0
# One name for it in every image; Python finds its library by the real one.
ln -s "$python" /sandbox/headgate/python
find /sandbox -xdev -perm /6000 -type f -exec chmod ug-s {} +
chmod -R a+rX /sandbox
chmod 1777 /sandbox/out /sandbox/tmp
