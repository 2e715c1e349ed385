#!/usr/bin/env bash
# Measures the gateway beside plain nginx in one run: promises S1, S5 and S10.
# Everything is on loopback, on ports and in a folder of its own, and is stopped and removed at the end.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: benches/compare.sh [--rounds N] [--seconds S] [--idle N] [--nginx-only]

  --rounds N      rounds of load for each server, in turns (default 5)
  --seconds S     length of a round (default 6)
  --idle N        idle connections for the memory figure (default 2000)
  --nginx-only    only the peer: tries the bench itself, builds nothing

PORTCULLIS names a release binary to measure; without it one is built.
TEXT
}

fail() {
    echo "compare: $1" >&2
    exit "${2:-1}"
}

rounds=5 seconds=6 idle=2000 servers=(nginx portcullis)
while (($#)); do
    case $1 in
        --rounds | --seconds | --idle)
            [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || fail "$1 needs a number" 2
            declare "${1#--}=$2"
            shift
            ;;
        --nginx-only) servers=(nginx) ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) usage >&2 && fail "unknown option $1" 2 ;;
    esac
    shift
done

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
measure=("$(command -v python3)" "$here/measure.py")
nginx=$(command -v nginx || true)
[[ -n $nginx ]] || nginx=/usr/sbin/nginx
for tool in "$nginx" wrk taskset openssl python3; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done
(($(nproc) >= 2)) || fail "two cores are needed: one for the servers, one for load and origin"
ulimit -n "$(ulimit -Hn)"
(($(ulimit -n) > 2 * idle + 200)) || fail "the limit of open files is too low for $idle connections"

# --- what is started is stopped, whatever happens -----------------------------------------------------------------

work=$(mktemp -d)
declare -A pid=()
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    local name
    for name in "${!pid[@]}"; do
        stop "$name"
    done
    rm -rf -- "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# start NAME CORE COMMAND...
start() {
    local name=$1 core=$2
    shift 2
    taskset -c "$core" "$@" >/dev/null 2>"$work/$name.err" &
    pid[$name]=$!
}

stop() {
    local process=${pid[$1]} _
    unset "pid[$1]"
    kill -TERM "$process" 2>/dev/null || true
    for _ in {1..100}; do
        kill -0 "$process" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
}

# --- the origin and the peer --------------------------------------------------------------------------------------

read -r origin_port nginx_port gateway_port admin_port < <("${measure[@]}" ports 4)
"$here/../certs/make-dev-certs.sh" --out "$work/certs" >/dev/null
export AUTHORITY=$work/certs/authority.pem
body=$(python3 -c 'import json
text = json.dumps({"sim": "8999901000400000001", "padding": ""})
print(text[:-2] + "x" * (1024 - len(text)) + text[-2:])')

# nginx_config NAME SERVER: one worker, nothing logged, connections kept for ever.
nginx_config() {
    mkdir -p "$work/$1"
    cat >"$work/$1/nginx.conf" <<TEXT
worker_processes 1;
pid $work/$1/pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path $work/$1/body;
    proxy_temp_path $work/$1/proxy;
    fastcgi_temp_path $work/$1/fastcgi;
    uwsgi_temp_path $work/$1/uwsgi;
    scgi_temp_path $work/$1/scgi;
    $2
}
TEXT
}

nginx_config origin "server {
        listen 127.0.0.1:$origin_port;
        default_type application/json;
        location / { return 200 '$body'; }
    }"
nginx_config nginx "upstream portal {
        server 127.0.0.1:$origin_port;
        keepalive 64;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }
    server {
        listen 127.0.0.1:$nginx_port ssl;
        ssl_certificate $work/certs/fullchain.pem;
        ssl_certificate_key $work/certs/privkey.pem;
        ssl_protocols TLSv1.3;
        location / {
            proxy_pass http://portal;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_set_header Host \$host;
            proxy_set_header X-Forwarded-For \$remote_addr;
            proxy_set_header X-Forwarded-Proto https;
        }
    }"

# --- the gateway --------------------------------------------------------------------------------------------------

declare -A url=([nginx]=https://localhost:$nginx_port/ [portcullis]=https://localhost:$gateway_port/)
declare -A cookie=([nginx]='')
binary=${PORTCULLIS:-}

prepare_gateway() {
    if [[ -z $binary ]]; then
        (cd "$here/.." && cargo build --release --locked) || fail "the release binary could not be built"
        binary=$here/../target/release/portcullis
    fi
    mkdir -p "$work/data"
    cat >"$work/portcullis.toml" <<TEXT
[server]
listen = ["127.0.0.1:$gateway_port"]
public_url = "https://localhost:$gateway_port"
admin_listen = "127.0.0.1:$admin_port"
workers = 1

[tls]
certificate = "$work/certs/fullchain.pem"
key = "$work/certs/privkey.pem"

[portal]
name = "Bench"
upstreams = ["http://127.0.0.1:$origin_port"]

[storage]
database = "sqlite:$work/data/portcullis.db"
key_file = "$work/data/portcullis.key"

[log]
access = false
TEXT
    local email=bench@example.com password
    password=$(openssl rand -base64 24)
    "$binary" user add "$email" --password-stdin --config "$work/portcullis.toml" <<<"$password" >"$work/user.log" ||
        fail "the user could not be added: $(<"$work/user.log")"
    start portcullis 0 "$binary" serve --config "$work/portcullis.toml"
    until_listening "$gateway_port" || fail "the gateway does not start: $(tail -n 20 "$work/portcullis.err")"
    cookie[portcullis]=$work/cookie
    (umask 077 && python3 "$here/login.py" "${url[portcullis]}" "$email" "$AUTHORITY" <<<"$password" >"$work/cookie")
    stop portcullis
}

until_listening() {
    local _
    for _ in {1..200}; do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.05
    done
    return 1
}

# command_of SERVER: sets the array `command`.
command_of() {
    case $1 in
        nginx) command=("$nginx" -p "$work/nginx" -c "$work/nginx/nginx.conf" -e stderr -g 'daemon off;') ;;
        portcullis) command=("$binary" serve --config "$work/portcullis.toml") ;;
    esac
}

# with_cookie SERVER COMMAND...: runs it with that server's session, if it wants one.
with_cookie() {
    local file=${cookie[$1]}
    shift
    if [[ -n $file ]]; then BENCH_COOKIE_FILE=$file "$@"; else "$@"; fi
}

# --- the measurements ---------------------------------------------------------------------------------------------

figures=$work/figures
: >"$figures"

# CPU time of a process and its children so far, in clock ticks: utime and stime of proc(5), all threads included.
ticks() {
    local process stat fields total=0
    for process in "$1" $(pgrep -P "$1"); do
        stat=$(<"/proc/$process/stat")
        # The name in parentheses may hold anything; behind it, utime and stime are fields 12 and 13.
        read -ra fields <<<"${stat##*) }"
        total=$((total + fields[11] + fields[12]))
    done
    echo "$total"
}

# load SERVER SECONDS: prints requests, microseconds, p99 in microseconds, bytes, failures.
load() {
    with_cookie "$1" taskset -c 1 wrk -t1 -c32 -d"$2s" -s "$here/load.lua" "${url[$1]}" |
        sed -n 's/^figures //p'
}

measure_start() {
    local millis
    command_of "$1"
    with_cookie "$1" taskset -c 1 "${measure[@]}" start "${url[$1]}" 5 -- taskset -c 0 "${command[@]}" >"$work/start"
    while read -r millis; do
        echo "start $1 $millis"
    done <"$work/start" >>"$figures"
}

measure_idle() {
    local memory
    memory=$(with_cookie "$1" taskset -c 1 "${measure[@]}" idle "${url[$1]}" "$idle" "${pid[$1]}")
    echo "idle $1 $memory" >>"$figures"
}

measure_round() {
    local before numbers after
    before=$(ticks "${pid[$1]}")
    numbers=$(load "$1" "$seconds")
    after=$(ticks "${pid[$1]}")
    [[ -n $numbers ]] || fail "wrk gave no figures for $1"
    echo "load $1 $numbers $((after - before))" >>"$figures"
}

describe() {
    echo "Date     $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    echo "Machine  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, Linux $(uname -r)"
    echo "Load     $(cut -d' ' -f1-3 /proc/loadavg) before the run; only a quiet machine gives true figures"
    echo "Peer     $("$nginx" -v 2>&1 | sed 's/.*: //'), $(openssl version | cut -d' ' -f1-2)"
    # wrk answers its version with a failure.
    echo "Wrk      $({ wrk -v || true; } 2>&1 | sed -n '1s/ Copyright.*//p')"
}

describe
start origin 1 "$nginx" -p "$work/origin" -c "$work/origin/nginx.conf" -e stderr -g 'daemon off;'
until_listening "$origin_port" || fail "the origin does not start: $(<"$work/origin.err")"
if [[ " ${servers[*]} " == *" portcullis "* ]]; then
    prepare_gateway
    echo "Gateway  $("$binary" --version)"
    echo "size portcullis $(stat -L -c %s "$binary")" >>"$figures"
fi
for server in "${servers[@]}"; do
    measure_start "$server"
done
for server in "${servers[@]}"; do
    command_of "$server"
    start "$server" 0 "${command[@]}"
    tls=$(with_cookie "$server" "${measure[@]}" check "${url[$server]}")
    echo "TLS      $server: $tls"
    # Right after the start, before load leaves freed memory behind that idle connections could use.
    measure_idle "$server"
    load "$server" 1 >/dev/null
done
for ((round = 1; round <= rounds; round++)); do
    for server in "${servers[@]}"; do
        measure_round "$server"
    done
done
for server in "${servers[@]}"; do
    with_cookie "$server" "${measure[@]}" check "${url[$server]}" >/dev/null
done
echo
"${measure[@]}" summary "$figures"
