#!/usr/bin/env bash
# The outage that a client sees when the master of three brokers on one database is killed, stopped, or frozen.
#
#   benches/failover/run.sh --harness STOMPBENCH --url URL [--password-file FILE] [--how kill|stop|freeze] [--times 10]
#                           [--backlog 5000000] [--lease 10]
#
# STOMPBENCH is the load generator's binary (see benches/README.md), URL a database as in store.url, whose group
# `failover_bench` is made and used here. The client sends synchronously, tries its list of three ports every 10 ms, and
# verifies every message. Whoever was killed or stopped comes back as a standby two seconds later. The release binary of
# this checkout is used; BATONMQ names another one.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

harness= url= password= how=kill times=10 backlog=0 lease=10
while (($#)); do
    case $1 in
        --harness) harness=$2 ;;
        --url) url=$2 ;;
        --password-file) password=$(realpath "$2") ;;
        --how) how=$2 ;;
        --times) times=$2 ;;
        --backlog) backlog=$2 ;;
        --lease) lease=$2 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
[[ -x $harness && -n $url ]] || { sed -n '2,11p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# The load generator strikes by itself, so what that needs is exported.
batonmq=$(realpath "${BATONMQ:-target/release/batonmq}")
home=$(mktemp -d)
port=45613
export batonmq home port url password how lease

stop_all() {
    local number pid
    for number in 0 1 2; do
        pid=$(cat "$home/$number.pid") || continue
        kill -CONT "$pid" && kill -TERM "$pid" || continue
        while kill -0 "$pid"; do sleep 0.1; done
    done 2>/dev/null
    rm -rf "$home"
}
trap stop_all EXIT

# Broker NUMBER, and its process id.
start() {
    local number=$1 backend=mysql
    [[ $url == postgres* ]] && backend=postgres
    cat >"$home/$number.toml" <<TOML
broker_name = "bench-$number"
data = "$home/$number"
[store]
backend = "$backend"
url = "$url"
group = "failover_bench"
${password:+password_file = "$password"}
[election]
lease = "${lease}s"
[console]
listen = ""
[[connectors]]
name = "stomp"
uri = "stomp://127.0.0.1:$((port + number))"
TOML
    setsid "$batonmq" start --config "$home/$number.toml" --log-level warn >>"$home/$number.log" 2>&1 </dev/null &
    echo $! >"$home/$number.pid"
}

# The broker whose port is open.
master() {
    local number
    for number in 0 1 2; do
        (: <>"/dev/tcp/127.0.0.1/$((port + number))") 2>/dev/null && echo "$number" && return
    done
    return 1
}

# Does it to the master, and brings it back.
strike() {
    local number pid
    number=$(master)
    pid=$(cat "$home/$number.pid")
    case $how in
        kill) kill -KILL "$pid" ;;
        stop) kill -TERM "$pid" ;;
        freeze) kill -STOP "$pid" && sleep $((lease + 3)) && kill -CONT "$pid" ;;
    esac
    if [[ $how != freeze ]]; then
        sleep 2
        start "$number"
    fi
}
export -f start master strike

for number in 0 1 2; do start "$number"; done
until master >/dev/null; do sleep 0.1; done
sleep 3 # the others wait for the lock by now

if ((backlog)); then
    "$harness" --mode fill --url "127.0.0.1:$((port + $(master)))" --destination backlog --messages "$backlog" --size 100 \
        --producers 8 --window 1000 --drain-timeout 60 --json >"$home/fill.json"
fi

every=6
[[ $how == freeze ]] && every=$((2 * lease + 6))
at=()
for ((n = 1; n <= times; n++)); do at+=(--at "$((n * every))=bash -c strike"); done
list="127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))"
"$harness" --mode failover --url "$list" --destination failover --ack client-individual --ack-receipt --prefetch 100 \
    --persistent true --gap-ms 10 --seconds $(((times + 1) * every)) --drain-timeout 60 --io-timeout-ms 30000 "${at[@]}" --json \
    >"$home/result.json"

for number in 0 1 2; do
    pid=$(cat "$home/$number.pid")
    echo "broker $number: $(awk '/VmHWM/ { printf "%.0f MB at most", $2 / 1024 }' "/proc/$pid/status")"
done
python3 - "$home/result.json" "$how" <<'PY'
import json, statistics, sys

result, how = json.load(open(sys.argv[1])), sys.argv[2]
more = result["more"]
outages = sorted(o["outage_ms"] for o in more["outages"])
print(f"{how}: {result['confirmed']} confirmed, {more['lost']} lost, {more['messages_again_after_confirmed_ack']} again after a "
      f"confirmed ack, {result['verify']['reordered']} out of order")
print(f"outages: median {statistics.median(outages):.0f} ms, least {outages[0]:.0f}, most {outages[-1]:.0f} ({len(outages)} times)")
sys.exit(more["lost"] > 0 or more["messages_again_after_confirmed_ack"] > 0)
PY
