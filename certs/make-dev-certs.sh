#!/usr/bin/env bash
# Makes a P-256 certificate for development, signed by a throw-away local authority.
# It is not for production: nobody else trusts it, and it runs out after 90 days.
set -euo pipefail
umask 077

usage() {
    cat <<'TEXT'
Usage: certs/make-dev-certs.sh [--force] [--out DIR] [HOST]

Makes fullchain.pem, privkey.pem and authority.pem in DIR (default: this folder),
for localhost, 127.0.0.1, ::1 and, when given, HOST (a name or an IPv4 address).

  --force   replace files that exist
  --out     another folder; it is made if need be
TEXT
}

fail() {
    echo "make-dev-certs: $1" >&2
    exit "${2:-1}"
}

force=no
out=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
host=
while (($#)); do
    case $1 in
        --force) force=yes ;;
        --out)
            [[ -n ${2:-} ]] || fail "--out needs a folder" 2
            out=$2
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        -*) usage >&2 && fail "unknown option $1" 2 ;;
        *)
            [[ -z $host ]] || fail "only one HOST" 2
            host=$1
            ;;
    esac
    shift
done

# The name goes into a configuration of openssl: letters, digits, hyphens and dots, nothing else.
label='[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?'
[[ -z $host || $host =~ ^$label(\.$label)*$ ]] || fail "not a host name or an IPv4 address: $host" 2
command -v openssl >/dev/null || fail "openssl is not installed"

mkdir -p -- "$out"
for file in fullchain.pem privkey.pem authority.pem; do
    [[ $force == yes || ! -e $out/$file ]] || fail "$out/$file exists; --force replaces it"
done

names='DNS:localhost,IP:127.0.0.1,IP:::1'
# What the authority may sign at all. Its key is deleted below, so this only matters if that deletion fails.
permitted='permitted;DNS:localhost,permitted;IP:127.0.0.1/255.255.255.255,permitted;IP:::1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'
if [[ $host =~ ^[0-9.]+$ ]]; then
    names+=",IP:$host"
    permitted+=",permitted;IP:$host/255.255.255.255"
elif [[ -n $host && $host != localhost ]]; then
    names+=",DNS:$host"
    permitted+=",permitted;DNS:$host"
fi

# Beside the target, so that the moves at the end stay on one file system.
work=$(mktemp -d -- "$out/.make-dev-certs.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

cat >"$work/openssl.cnf" <<TEXT
[req]
prompt = no
distinguished_name = subject
[subject]
CN = Portcullis development authority $(openssl rand -hex 4)
[authority]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
nameConstraints = critical,$permitted
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = $names
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
TEXT

run() {
    openssl "$@" 2>"$work/log" || {
        cat "$work/log" >&2
        fail "openssl $1 failed"
    }
}
for name in authority privkey; do
    run genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$name.key"
done
run req -x509 -new -sha256 -days 90 -config "$work/openssl.cnf" -extensions authority \
    -key "$work/authority.key" -out "$work/authority.pem"
run req -new -sha256 -config "$work/openssl.cnf" -subj "/CN=Portcullis development" \
    -key "$work/privkey.key" -out "$work/server.csr"
run x509 -req -sha256 -days 90 -in "$work/server.csr" -set_serial "0x$(openssl rand -hex 16)" \
    -CA "$work/authority.pem" -CAkey "$work/authority.key" \
    -extfile "$work/openssl.cnf" -extensions server -out "$work/server.pem"
rm -f -- "$work/authority.key"
run verify -purpose sslserver -CAfile "$work/authority.pem" "$work/server.pem" >/dev/null

# A chain ends below the authority, which clients have to know already (RFC 8446 section 4.4.2).
mv -f -- "$work/privkey.key" "$out/privkey.pem"
mv -f -- "$work/server.pem" "$out/fullchain.pem"
mv -f -- "$work/authority.pem" "$out/authority.pem"

cat <<TEXT
Made for ${names//,/, }, valid for 90 days:
  $out/fullchain.pem   the certificate
  $out/privkey.pem     its private key
  $out/authority.pem   what clients have to trust

Next:
  1. In the configuration:   [tls]
                             certificate = "$out/fullchain.pem"
                             key = "$out/privkey.pem"
  2. Start the gateway:      portcullis serve --config FILE
  3. Ask it:                 curl --cacert $out/authority.pem https://${host:-localhost}:8443/
  4. For a browser, import authority.pem as an authority for web sites, or accept its warning.
The authority's key is deleted: nothing else can be signed with it.
TEXT
