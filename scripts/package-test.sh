#!/usr/bin/env bash
# Installs the deb package $1 in a fresh Debian in a container, starts a node under its unit, revokes a token,
# upgrades (the same package again), and removes and purges the package. It needs root, debootstrap,
# systemd-nspawn and Debian's packages. The directory $2 keeps the fresh Debian for the next run.
set -euo pipefail
deb=${1:?usage: scripts/package-test.sh PACKAGE.deb [DIRECTORY]}
base=${2:-$(mktemp -d)/debian}

[ -d "$base" ] || debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates bookworm "$base"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -a "$base" "$work/root"
cp "$deb" "$work/root/root/revoked.deb"
printf "127.0.0.1 localhost\n" > "$work/root/etc/hosts"
cat > "$work/root/root/test.sh" <<'INNER'
set -euo pipefail
say() { printf '== %s\n' "$*"; }

say "install"
dpkg -i /root/revoked.deb
! systemctl is-active revoked || { say "the package started the node"; exit 1; }

say "settings of a cluster of one"
cd /etc/revoked
revoked cert ca --dir pki --name test >/dev/null
revoked cert node node1 --dir pki --hosts localhost >/dev/null
revoked cert server api --dir pki --hosts localhost >/dev/null
cp pki/*.pem .
revoked keygen -f gossip.key
revoked keygen --secret -f admin.secret
cat > revoked.yml <<YML
node_id: node1
api_advertise: localhost:8443
cluster_advertise: localhost:7443
data_dir: /var/lib/revoked
issuer: https://localhost:8443
api_cert: /etc/revoked/api.pem
api_key: /etc/revoked/api-key.pem
cluster_ca: /etc/revoked/ca.pem
cluster_cert: /etc/revoked/node1.pem
cluster_key: /etc/revoked/node1-key.pem
gossip_key_file: /etc/revoked/gossip.key
bootstrap_expect: 1
bootstrap_admin_secret_file: /etc/revoked/admin.secret
shutdown_delay: 0s
YML
chown -R revoked:revoked /etc/revoked

say "start"
systemctl enable --now revoked
systemctl is-active revoked
export REVOKED_ADDR=https://localhost:8443 REVOKED_CACERT=/etc/revoked/ca.pem
export REVOKED_CLIENT_ID=admin REVOKED_CLIENT_SECRET_FILE=/etc/revoked/admin.secret
for _ in $(seq 100); do revoked healthcheck >/dev/null 2>&1 && break; sleep 0.2; done
revoked members
revoked client create issuer --role issuer --secret-out /root/issuer.secret >/dev/null
revoked client create app --secret-out /root/app.secret >/dev/null
printf 'a-token-of-this-test' > /root/token
REVOKED_CLIENT_ID=issuer REVOKED_CLIENT_SECRET_FILE=/root/issuer.secret \
	revoked token register --client app --access-token-file /root/token
REVOKED_CLIENT_ID=app REVOKED_CLIENT_SECRET_FILE=/root/app.secret revoked token revoke /root/token

say "the sandbox"
systemd-analyze security revoked.service --no-pager | tail -n 1
pid=$(systemctl show -p MainPID --value revoked)
grep -E '^(NoNewPrivs|Seccomp):' "/proc/$pid/status"
stat -c %U "/proc/$pid"

say "upgrade: a running node keeps its process"
dpkg -i /root/revoked.deb >/dev/null
[ "$(systemctl show -p MainPID --value revoked)" = "$pid" ]
systemctl restart revoked
pid=$(systemctl show -p MainPID --value revoked)
for _ in $(seq 100); do revoked healthcheck >/dev/null 2>&1 && break; sleep 0.2; done
revoked audit | tail -n 2

say "remove and purge"
dpkg --remove revoked >/dev/null
! systemctl is-active revoked
[ ! -e "/proc/$pid" ]
[ ! -e /usr/bin/revoked ]
dpkg --purge revoked
ls -d /var/lib/revoked/* /etc/revoked/revoked.yml
getent passwd revoked

say "install again: the same member"
dpkg -i /root/revoked.deb >/dev/null
systemctl start revoked
for _ in $(seq 100); do revoked healthcheck >/dev/null 2>&1 && break; sleep 0.2; done
revoked members
say "passed"
INNER
cat > "$work/root/etc/systemd/system/package-test.service" <<'UNIT'
[Unit]
After=basic.target
[Service]
Type=oneshot
StandardOutput=file:/root/test.log
StandardError=inherit
ExecStart=/bin/bash /root/test.sh
ExecStopPost=/bin/systemctl poweroff --no-block
[Install]
WantedBy=multi-user.target
UNIT
ln -s ../package-test.service "$work/root/etc/systemd/system/multi-user.target.wants/package-test.service"
timeout 300 systemd-nspawn --quiet --directory "$work/root" --boot --private-network --register=no --keep-unit \
	</dev/null >"$work/console.log" 2>&1 || true
cat "$work/root/root/test.log"
[ "$(tail -n 1 "$work/root/root/test.log")" = "== passed" ]
