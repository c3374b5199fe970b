#!/usr/bin/env bash
# The outage that clients see when the machine of the database is lost: a primary is killed and its synchronous standby
# promoted, or a node of a Galera cluster is killed; and how much of it is the database's own.
#
#   benches/failover/machine.sh --harness STOMPBENCH --on postgres|galera [--times 5]
#
# STOMPBENCH is the load generator's binary (see benches/README.md). Debian's postgresql or mariadb-server is needed;
# private servers are made and removed each time, as the user of their package if this is run as root. The disk is synced.
# Three brokers, eight synchronous producers, eight consumers, all on this machine; every message is verified. The release
# binary of this checkout is used; BATONMQ names another one.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# A command as the user of the database's package.
as_server() {
    local user=postgres
    [[ $on == galera ]] && user=mysql
    if [[ $(id -u) == 0 ]]; then
        setpriv --reuid="$user" --regid="$user" --clear-groups "$@"
    else
        "$@"
    fi
}

# Waits until a command succeeds.
until_it() {
    until "$@" >/dev/null 2>&1; do sleep 0.01; done
}

now() { date +%s%3N; }

psql_on() {
    PGCONNECT_TIMEOUT=1 "$programs/psql" --no-psqlrc -qAt "host=127.0.0.1 port=$1 user=owner dbname=postgres" -c "$2"
}

postgres_on() {
    as_server setsid "$programs/postgres" -D "$home/$1" -p "$1" -k "$home" -c listen_addresses=127.0.0.1 \
        -c cluster_name=standby "${@:2}" >>"$home/$1.log" 2>&1 </dev/null &
    until_it psql_on "$1" "SELECT 1"
}

start_postgres() {
    as_server "$programs/initdb" -A trust -U owner -D "$home/45701" >"$home/initdb.log"
    postgres_on 45701 -c synchronous_standby_names=standby
    as_server "$programs/pg_basebackup" -R -c fast -h 127.0.0.1 -p 45701 -U owner -D "$home/45702"
    postgres_on 45702
    echo "postgres://owner@127.0.0.1:45701,127.0.0.1:45702/postgres"
}

strike_postgres() {
    kill -KILL "$(head -1 "$home/45701/postmaster.pid")"
    as_server "$programs/pg_ctl" promote -D "$home/45702"
    until_it psql_on 45702 "CREATE TEMPORARY TABLE written ()"
}

client_on() {
    mariadb --no-defaults --connect-timeout=1 -h127.0.0.1 -P"$1" -uowner -NBe "$2"
}

node_on() {
    as_server mkdir -p "$home/$1"
    as_server env TMPDIR="$home" setsid /usr/sbin/mariadbd --no-defaults --datadir="$home/$1" --port="$1" \
        --socket="$home/$1.socket" --pid-file="$home/$1.pid" --bind-address=127.0.0.1 --skip-name-resolve --wsrep-on=ON \
        --wsrep-provider=/usr/lib/galera/libgalera_smm.so --wsrep-sst-method=rsync --binlog-format=ROW \
        --wsrep-node-address="127.0.0.1:$(($1 + 10))" --wsrep-sst-receive-address="127.0.0.1:$(($1 + 30))" \
        --wsrep-provider-options="gmcast.listen_addr=tcp://127.0.0.1:$(($1 + 10));ist.recv_addr=127.0.0.1:$(($1 + 20))" \
        "${@:2}" >>"$home/$1.log" 2>&1 </dev/null &
}

start_galera() {
    local port
    as_server mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db \
        --datadir="$home/45701" >"$home/install.log"
    printf '%s;\n' "CREATE DATABASE brokers" "CREATE USER owner" "GRANT ALL ON *.* TO owner" >"$home/first.sql"
    chmod a+r "$home/first.sql"
    node_on 45701 --wsrep-new-cluster --wsrep-cluster-address=gcomm:// --init-file="$home/first.sql"
    until_it client_on 45701 "SELECT 1"
    for port in 45702 45703; do
        node_on "$port" --wsrep-cluster-address=gcomm://127.0.0.1:45711
        until_it client_on "$port" "SELECT 1"
    done
    echo "mysql://owner@127.0.0.1:45701,127.0.0.1:45702,127.0.0.1:45703/brokers"
}

strike_galera() {
    kill -KILL "$(cat "$home/45701.pid")"
    until_it client_on 45702 "CREATE OR REPLACE TABLE brokers.written (id INT PRIMARY KEY)"
}

broker() {
    local strategy=auto backend=postgres
    [[ $on == galera ]] && strategy=lease backend=mysql
    cat >"$home/$1.toml" <<TOML
broker_name = "bench-$1"
data = "$home/broker-$1"
[store]
backend = "$backend"
url = "$url"
[election]
strategy = "$strategy"
[console]
listen = ""
[[connectors]]
name = "stomp"
uri = "stomp://127.0.0.1:4562$1"
TOML
    "$batonmq" start --config "$home/$1.toml" --log-level warn >"$home/broker-$1.log" 2>&1 </dev/null &
    brokers+=($!)
}

# The load generator runs this script once more, with all that it needs in the environment.
if [[ ${1:-} == strike ]]; then
    began=$(now)
    "strike_$on"
    echo $(($(now) - began)) >"$home/recovery"
    exit
fi

harness= on= times=5
while (($#)); do
    case $1 in
        --harness) harness=$2 ;;
        --on) on=$2 ;;
        --times) times=$2 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
[[ -x $harness && $on =~ ^(postgres|galera)$ ]] || { sed -n '2,12p' "${BASH_SOURCE[0]}" >&2; exit 2; }

batonmq=$(realpath "${BATONMQ:-target/release/batonmq}")
programs=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -1)
export programs on

end() {
    kill -TERM "${brokers[@]}" 2>/dev/null || true
    wait "${brokers[@]}" 2>/dev/null || true
    local pid
    for pid in $(compgen -G "$home/457*/postmaster.pid"; compgen -G "$home/457*.pid"); do
        kill -KILL "$(head -1 "$pid")" 2>/dev/null || true
    done
    wait
    rm -rf "$home"
}

for ((n = 1; n <= times; n++)); do
    home=$(mktemp -d) brokers=()
    export home
    chmod a+rwx "$home"
    trap end EXIT
    url=$("start_$on")
    for number in 0 1 2; do broker "$number"; done
    until_it eval '(: <>/dev/tcp/127.0.0.1/45620) || (: <>/dev/tcp/127.0.0.1/45621) || (: <>/dev/tcp/127.0.0.1/45622)'
    "$harness" --mode failover --url 127.0.0.1:45620,127.0.0.1:45621,127.0.0.1:45622 --destination machine \
        --producers 8 --consumers 8 --ack client-individual --ack-receipt --prefetch 100 --persistent true --gap-ms 10 \
        --seconds 15 --drain-timeout 60 --io-timeout-ms 30000 --at "5=benches/failover/machine.sh strike" \
        --json >"$home/result.json"
    python3 - "$home/result.json" "$(cat "$home/recovery")" <<'PY'
import json, sys

result, recovery = json.load(open(sys.argv[1])), int(sys.argv[2])
more = result["more"]
again, outages = more["messages_again_after_confirmed_ack"], [round(o["outage_ms"]) for o in more["outages"]]
print(f"{result['confirmed']} confirmed, {more['lost']} lost, {again} again after a confirmed ack,",
      f"{result['verify']['reordered']} out of order; the database was back after {recovery} ms, clients after {outages} ms")
sys.exit(more["lost"] > 0 or again > 0)
PY
    trap - EXIT
    end
done
