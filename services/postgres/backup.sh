#!/bin/sh
# Writes the records of the compose stack into one file, while everything runs: `make backup`.
#
# The dump is one consistent moment: every decision that was stored before it began is in it, and no
# half of one. Beside it stands the head of the audit log as it was before, to hold the log against
# after a restore. Both are for the eyes of their owner alone: they hold what applicants said.
set -eu
umask 077
compose=${COMPOSE:-docker compose}
file=${1:-backups/loan-$(date -u +%Y%m%dT%H%M%SZ).dump}

if [ -e "$file" ]; then
    echo "$file is there already." >&2
    exit 1
fi
mkdir -p "$(dirname "$file")"
audit=$($compose run --rm --no-deps -T migrate python -m services.history.audit)
$compose exec -T postgres pg_dump --host=/var/run/postgresql --username=loan --format=custom \
    --no-owner loan > "$file.unfinished"
# Read to its end, for a disk may be full.
$compose exec -T postgres pg_restore --file=/dev/null < "$file.unfinished"
printf '%s\n' "$audit" | sed -n 's/^Its head is //p' > "$file.head"
mv "$file.unfinished" "$file"
echo "Wrote $file ($(wc -c < "$file" | tr -d ' ') bytes) and the audit log's head beside it."
