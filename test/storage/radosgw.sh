#!/usr/bin/env bash
# A real S3 server for the contract suite: Ceph's gateway from Debian packages, unpacked into a folder and not installed.
#   radosgw.sh fetch FOLDER          downloads and unpacks (about 100 packages, 64 MB; needs apt)
#   radosgw.sh up FOLDER [PORT]      starts monitor, in-memory storage and gateway on 127.0.0.1:PORT; prints the endpoint
#   radosgw.sh down FOLDER           stops what `up` started
set -euo pipefail

verb=${1:?fetch, up or down}
mkdir -p "${2:?a folder}"
folder=$(cd "$2" && pwd)
port=${3:-55491}
root=$folder/root
run=$folder/run
mon=$((port - 1))

lib=$root/usr/lib/$(uname -m)-linux-gnu
# The programs find their libraries and plugins in the folder.
with_root() {
  env LD_LIBRARY_PATH="$lib:$lib/ceph:$root/usr/lib:$root/lib/$(uname -m)-linux-gnu" \
    PYTHONPATH="$root/usr/lib/python3/dist-packages" PATH="$root/usr/bin:$root/usr/sbin:$PATH" \
    CEPH_CONF="$run/ceph.conf" "$@"
}

fetch() {
  mkdir -p "$folder/debs" "$root"
  cd "$folder/debs"
  apt-get update -qq
  apt-get -s install --no-install-recommends radosgw ceph-mon ceph-osd | awk '/^Inst/ { print $2 }' >../packages
  xargs -a ../packages apt-get download -qq
  for package in *.deb; do dpkg -x "$package" "$root"; done
}

configure() {
  cat >"$run/ceph.conf" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = [v2:127.0.0.1:$mon/0,v1:127.0.0.1:$((mon - 1))/0]
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = true
keyring = $run/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
run dir = $run/run
admin socket = $run/run/\$name.asok
pid file = $run/run/\$name.pid
log file = $run/\$name.log
crash dir = $run/run
erasure code dir = $lib/ceph/erasure-code
plugin dir = $lib/ceph
osd class dir = $root/usr/lib/$(uname -m)-linux-gnu/rados-classes
ms bind port min = $((port + 1))
ms bind port max = $((port + 9))
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
[mon.a]
mon data = $run/mon
mon cluster log file = $run/cluster.log
[osd.0]
osd data = $run/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd crush update on start = false
[client.rgw]
rgw data = $run/rgw
rgw frontends = beast endpoint=127.0.0.1:$port
rgw dns name = localhost
CONF
}

ceph() { with_root python3 "$root/usr/bin/ceph" --connect-timeout 20 "$@" >/dev/null 2>&1; }

up() {
  rm -rf "$run"
  mkdir -p "$run"/{mon,osd,run,rgw}
  configure
  with_root monmaptool --create --fsid "$(sed -n 's/^fsid = //p' "$run/ceph.conf")" \
    --addv a "[v2:127.0.0.1:$mon/0,v1:127.0.0.1:$((mon - 1))/0]" "$run/monmap" >/dev/null
  with_root ceph-authtool --create-keyring "$run/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
  for name in client.admin client.rgw osd.0; do
    with_root ceph-authtool "$run/keyring" --gen-key -n "$name" \
      --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' >/dev/null
  done
  with_root ceph-mon --mkfs -i a --monmap "$run/monmap" --keyring "$run/keyring"
  with_root ceph-mon -i a 2>/dev/null
  ceph config set mon auth_allow_insecure_global_id_reclaim true || true
  osd_id=$(cat /proc/sys/kernel/random/uuid)
  ceph osd new "$osd_id" 0
  ceph osd crush add-bucket here host
  ceph osd crush move here root=default
  ceph osd crush add osd.0 1.0 host=here
  with_root ceph-osd -i 0 --mkfs --osd-uuid "$osd_id" --keyring "$run/keyring" 2>/dev/null
  with_root ceph-osd -i 0 >/dev/null 2>&1
  with_root radosgw-admin -n client.rgw user create --uid=test --display-name=test \
    --access-key=TESTKEY --secret=TESTSECRET >/dev/null 2>&1
  with_root radosgw -n client.rgw 2>/dev/null
  for _ in $(seq 150); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "http://127.0.0.1:$port"
      return
    fi
    sleep 0.2
  done
  echo "the gateway did not start; its log is in $run" >&2
  return 1
}

down() {
  for file in "$run"/run/*.pid; do
    if [[ -s $file ]]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

case $verb in
  fetch | up | down) "$verb" ;;
  *)
    echo "fetch, up or down" >&2
    exit 2
    ;;
esac
