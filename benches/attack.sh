#!/usr/bin/env bash
# Attacks a gateway of its own, on loopback only, and prints what it withstood: promises R7, R8 and S5 (WebSockets), and
# what a scanner finds wrong with its TLS.
# Everything is on ports and in a folder of its own, and is stopped and removed at the end.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: benches/attack.sh [--slow N] [--bombs N] [--tunnels N] [--seconds S] [slow|floods|bombs|tunnels|tls]...

  --slow N      connections of each slow attack (default 5000)
  --bombs N     hostile connections of 64 requests each (default 1000)
  --tunnels N   idle WebSockets (default 9000)
  --seconds S   length of a slow attack, and of the quiet time before (default 20)

Without a name all five run. PORTCULLIS names a release binary; without it one is built. Needs openssl and python3; for the
slow attacks slowhttptest (a Debian package), two cores and root, for TLS sslyze (pip install sslyze).
TEXT
}

fail() {
    echo "attack: $1" >&2
    exit "${2:-1}"
}

readonly ATTACKERS=10
slow=5000 bombs=1000 tunnels=9000 seconds=20 parts=()
while (($#)); do
    case $1 in
        --slow | --bombs | --tunnels | --seconds)
            [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || fail "$1 needs a number" 2
            declare "${1#--}=$2"
            shift
            ;;
        slow | floods | bombs | tunnels | tls) parts+=("$1") ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) usage >&2 && fail "unknown option $1" 2 ;;
    esac
    shift
done
((${#parts[@]})) || parts=(slow floods bombs tunnels tls)

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# The interpreter itself: what a wrapper starts would outlive the wrapper.
python=$(python3 -c 'import sys; print(sys.executable)')
attack=("$python" "$here/attack.py")
[[ " ${parts[*]} " != *" slow "* ]] || command -v slowhttptest >/dev/null || fail "slowhttptest is not installed"
[[ " ${parts[*]} " != *" slow "* ]] || taskset -c 1 chrt --fifo 1 true 2>/dev/null || fail "the slow attacks need two cores and root"
[[ " ${parts[*]} " != *" tls "* ]] || command -v sslyze >/dev/null || fail "sslyze is not installed"
ulimit -n "$(ulimit -Hn)"
(($(ulimit -n) > 2 * tunnels + 200)) || fail "the limit of open files is too low for $tunnels tunnels"

work=$(mktemp -d)
pids=()
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    local process _
    for process in "${pids[@]}"; do
        kill -TERM "$process" 2>/dev/null || true
    done
    for process in "${pids[@]}"; do
        for _ in {1..100}; do
            kill -0 "$process" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$process" 2>/dev/null || true
    done
    rm -rf -- "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

until_listening() {
    local _
    for _ in {1..200}; do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.05
    done
    fail "nothing listens on port $1: $(tail -n 20 "$work/$2")"
}

# --- portal, gateway, user ----------------------------------------------------------------------------------------

binary=${PORTCULLIS:-}
if [[ -z $binary ]]; then
    (cd "$here/.." && cargo build --release --locked) || fail "the release binary could not be built"
    binary=$here/../target/release/portcullis
fi
read -r portal_port gateway_port admin_port < <("${attack[@]}" ports 3)
"$here/../certs/make-dev-certs.sh" --out "$work/certs" >/dev/null
export AUTHORITY=$work/certs/authority.pem BENCH_COOKIE_FILE=$work/cookie
mkdir "$work/data"
url=https://localhost:$gateway_port/
cat >"$work/portcullis.toml" <<TEXT
[server]
listen = ["127.0.0.1:$gateway_port"]
public_url = "https://localhost:$gateway_port"
admin_listen = "127.0.0.1:$admin_port"
# slowhttptest has one address only.
max_connections_per_network = 10000

[tls]
certificate = "$work/certs/fullchain.pem"
key = "$work/certs/privkey.pem"

[portal]
name = "Bench"
upstreams = ["http://127.0.0.1:$portal_port"]
max_streams = 20000
max_streams_per_user = 20000

[storage]
database = "sqlite:$work/data/portcullis.db"
key_file = "$work/data/portcullis.key"

[log]
access = false
TEXT
"${attack[@]}" portal "$portal_port" 2>"$work/portal.log" &
portal=$!
pids+=("$portal")
until_listening "$portal_port" portal.log
email=bench@example.com
password=$(openssl rand -base64 24)
"$binary" user add "$email" --init --password-stdin --config "$work/portcullis.toml" <<<"$password" >"$work/user.log" ||
    fail "the user could not be added: $(<"$work/user.log")"

# start_gateway [COMMAND...]: a fresh process, started by that command, so that one attack's leavings are not another's.
start_gateway() {
    "$@" "$binary" serve --config "$work/portcullis.toml" >"$work/gateway.log" 2>&1 &
    gateway=$!
    pids+=("$gateway")
    until_listening "$gateway_port" gateway.log
}

stop_gateway() {
    kill -TERM "$gateway"
    wait "$gateway" || true
}

start_gateway
(umask 077 && "${attack[@]}" login "$url" "$email" <<<"$password" >"$work/cookie")
stop_gateway

count() {
    "$python" -c "import urllib.request as u; print(u.urlopen('http://127.0.0.1:$portal_port/count').read().decode())"
}

mib() {
    awk -v bytes="$1" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'
}

# --- the attacks --------------------------------------------------------------------------------------------------

slow() {
    local mode name arguments attackers number p50 p99 asked failed quiet
    # In the field each has a machine of their own. Here the gateway has one core, and all others share another: there the user
    # and the portal come first, and the attackers get what is left.
    local user=(taskset -c 1 chrt --fifo 1 "${attack[@]}" honest "$url" "$seconds")
    local attacker=(taskset -c 1 chrt --idle 0 slowhttptest)
    taskset -pc 1 "$portal" >/dev/null
    chrt --fifo -p 1 "$portal"
    start_gateway taskset -c 0
    for mode in H B X R; do
        # Each time anew: machines that are shared become faster and slower from one minute to the next.
        read -r p50 quiet asked failed < <("${user[@]}")
        echo "slow: honest user alone: p50 $p50 us, p99 $quiet us, $asked requests, $failed failed"
        case $mode in
            H) name=heads arguments=(-H -i 5) ;;
            B) name=bodies arguments=(-B -i 5 -s 8192) ;;
            X) name=reads arguments=(-X -n 5 -w 10 -y 20 -z 5 -k 1) ;;
            R) name=ranges arguments=(-R) ;;
        esac
        # Several, since one that looks after all the connections keeps the core in the kernel, where nobody may interrupt it.
        attackers=()
        for ((number = 0; number < ATTACKERS; number++)); do
            "${attacker[@]}" "${arguments[@]}" -c "$((slow / ATTACKERS))" -r "$((1000 / ATTACKERS))" -l "$((seconds + 5))" -p 5 \
                -u "$url.portcullis/login" >"$work/slow.$number.log" 2>&1 &
            attackers+=("$!")
        done
        pids+=("${attackers[@]}")
        read -r p50 p99 asked failed < <("${user[@]}")
        echo "slow: $name, $slow connections: p50 $p50 us, p99 $p99 us ($(awk -v a="$p99" -v b="$quiet" 'BEGIN { printf "%.2f", a / b }') x alone), $asked requests, $failed failed, $(mib "$(($(awk '{ print $2 }' "/proc/$gateway/statm") * 4096))")"
        wait "${attackers[@]}" || true
        echo "      of the first $((slow / ATTACKERS)):"
        sed -n 's/\x1b\[[0-9;]*m//g; /closed:\|connected:\|Exit status/{s/^ */      /;p}' "$work/slow.0.log" | tail -n 3
    done
    stop_gateway
}

floods() {
    local kind took frames before
    start_gateway
    for kind in ping settings priority window-of-one window-of-none empty-data continuation rapid-reset made-you-reset; do
        before=$(count)
        read -r took frames < <("${attack[@]}" flood "$kind" "$url")
        echo "flood: $kind closed after $took s and $frames frames; $(($(count) - before)) requests reached the portal"
    done
    stop_gateway
}

bombs() {
    local kind before idle peak after
    for kind in indexed fields unread bodies; do
        start_gateway
        read -r before idle peak after < <("${attack[@]}" bomb "$kind" "$url" "$bombs" "$gateway")
        echo "bomb: $kind, $bombs connections x 64 requests: $(mib "$before") before, $(mib "$idle") with idle connections, $(mib "$peak") at most, $(mib "$after") after; $(((peak - before) / bombs / 1024)) KiB a connection"
        stop_gateway
    done
}

tunnels() {
    local each left took after
    start_gateway
    read -r each left took after < <("${attack[@]}" tunnels "$url" "$tunnels" "$gateway" -- \
        "$binary" session revoke --all --yes --config "$work/portcullis.toml")
    echo "tunnels: $tunnels idle WebSockets, $(awk -v b="$each" 'BEGIN { printf "%.1f KiB", b / 1024 }') each; one still echoed; revoked, $left left open after $took s, $after s of them after the command had ended"
    stop_gateway
}

tls() {
    start_gateway
    local found=0
    sslyze --mozilla_config=intermediate --certinfo_ca_file="$AUTHORITY" "localhost:$gateway_port" >"$work/tls.log" 2>&1 || found=$?
    echo "tls: $(sslyze --help | grep -o 'SSLyze version [0-9.]*'); Mozilla's intermediate profile: $(sed -n "s/^ *localhost:$gateway_port: //p" "$work/tls.log")"
    # No store of the world's trusts an authority made for this run.
    grep -v ' CA Store ' "$work/tls.log" | grep -E 'VULNERABLE|FAILED|WARNING|FAIL' | sed 's/^ */tls: /' | sort -u || true
    stop_gateway
    return "$found"
}

echo "Date     $(date -u +%Y-%m-%dT%H:%M:%SZ)"
echo "Machine  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, Linux $(uname -r)"
echo "Load     $(cut -d' ' -f1-3 /proc/loadavg) before the run; attackers and portal on the same machine"
echo "Gateway  $("$binary" --version)"
for part in "${parts[@]}"; do
    "$part"
done
