#!/bin/sh
# Writes the records of the compose stack to one file while everything runs: `make backup`.
#
# The dump shows one consistent moment: it has every decision stored before it began. The head of the
# audit log, noted before the dump, is written next to it, to verify the log after a restore. Only
# their owner can read the files: they contain what applicants entered.
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
# Read to its end, because the disk may be full.
$compose exec -T postgres pg_restore --file=/dev/null < "$file.unfinished"
printf '%s\n' "$audit" | sed -n 's/^Its head is //p' > "$file.head"
mv "$file.unfinished" "$file"
echo "Wrote $file ($(wc -c < "$file" | tr -d ' ') bytes) and the audit log's head beside it."
