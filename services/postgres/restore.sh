#!/bin/sh
# Restores a backup into the compose stack's empty database: `make restore FILE=...`.
#
# Refuses a database that holds a decision or an audit row, and changes nothing then. Callers may keep
# requesting decisions: they wait on the stream until the consumer is back.
set -eu
compose=${COMPOSE:-docker compose}
file=${1:?the file to restore}
server="--host=/var/run/postgresql --username=loan"

psql() {
    $compose exec -T postgres psql $server --no-psqlrc --quiet --tuples-only --no-align \
        --set=ON_ERROR_STOP=1 "--dbname=$1" "--command=$2" < /dev/null
}

refuse_unless_empty() {
    [ "$(psql loan "SELECT count(*) FROM pg_tables WHERE tablename = 'audit_log'")" = 1 ] || return 0
    rows="EXISTS (SELECT FROM predictions) OR EXISTS (SELECT FROM audit_log)"
    [ "$(psql loan "SELECT $rows")" = f ] || {
        echo "The database is not empty; it was left as it is." >&2
        return 1
    }
}

[ -r "$file" ] && [ -r "$file.head" ] || {
    echo "$file and $file.head must be there, as make backup writes them." >&2
    exit 1
}
$compose up --detach --no-deps postgres
tries=0
until $compose exec -T postgres pg_isready --quiet --host=127.0.0.1 < /dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { echo "PostgreSQL does not start." >&2; exit 1; }
    sleep 0.5
done

refuse_unless_empty
$compose stop history history-consumer
# A decision may have been stored until now.
refuse_unless_empty || { $compose start history history-consumer; exit 1; }

# Recreated, so that nothing of an empty but newer schema is left.
psql postgres "DROP DATABASE loan WITH (FORCE)"
psql postgres "CREATE DATABASE loan"
$compose exec -T postgres pg_restore $server --dbname=loan --no-owner --single-transaction \
    --exit-on-error < "$file"
$compose run --rm --no-deps -T migrate < /dev/null

# Roll-ups were counted when decisions were stored, so they show whether one is missing.
counts=$(psql loan "SELECT count(*), (SELECT coalesce(sum(predictions), 0) FROM prediction_rollup
    WHERE period = 'all') FROM predictions")
[ "${counts%|*}" = "${counts#*|}" ] || {
    echo "The restored database holds and counts different numbers of decisions: $counts." >&2
    exit 1
}
$compose run --rm --no-deps -T migrate python -m services.history.audit "$(cat "$file.head")" < /dev/null
echo "Restored ${counts%|*} decisions. \`make up\` starts what stores and shows them."
