#!/bin/sh
# Starts the Alertmanager with the e-mail receiver given by ALERT_EMAIL_TO and ALERT_SMTP_...: it
# does not read settings from the environment, so this script writes them to a private file.
# Without ALERT_EMAIL_TO alerts are shown, but not sent. The shell itself writes the values, because
# every user of the host can read a program's arguments.
set -eu
umask 077
folder=${ALERTMANAGER_CONFIG:-/tmp/alertmanager}
mkdir -p "$folder"

# Quotes any value as a YAML string.
quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"
}

if [ -z "${ALERT_EMAIL_TO:-}" ]; then
    echo "ALERT_EMAIL_TO is not set: alerts are shown in Grafana, but not sent." >&2
    receiver="  - name: operator"
elif [ -z "${ALERT_SMTP_HOST:-}" ]; then
    echo "ALERT_EMAIL_TO is set, but ALERT_SMTP_HOST (mail.example:587) is not." >&2
    exit 1
else
    receiver="  - name: operator
    email_configs:
      - to: $(quoted "$ALERT_EMAIL_TO")
        from: $(quoted "${ALERT_EMAIL_FROM:-$ALERT_EMAIL_TO}")
        smarthost: $(quoted "$ALERT_SMTP_HOST")
        require_tls: ${ALERT_SMTP_TLS:-true}
        send_resolved: true"
    if [ -n "${ALERT_SMTP_USER:-}" ]; then
        printf '%s' "${ALERT_SMTP_PASSWORD:-}" > "$folder/smtp-password"
        receiver="$receiver
        auth_username: $(quoted "$ALERT_SMTP_USER")
        auth_password_file: $(quoted "$folder/smtp-password")"
    fi
    echo "Alerts go to $ALERT_EMAIL_TO." >&2
fi

cat > "$folder/alertmanager.yml" <<END
route:
  receiver: operator
  group_by: [alertname]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 12h
  routes:
    - matchers: ['severity="critical"']
      receiver: operator
      repeat_interval: 1h
# An alert that follows from another is suppressed by it.
inhibit_rules:
  - source_matchers: [alertname="ServiceGone"]
    target_matchers: [alertname="TargetDown"]
    equal: [job]
  - source_matchers: [alertname=~"RedisDown|RedisFull"]
    target_matchers: [alertname=~"HandOverDegraded|RateLimitsDegraded|RedisMemoryHigh"]
  - source_matchers: [alertname=~"DatabaseDown|DatabaseDiskFull"]
    target_matchers: [alertname=~"ConsumerStalled|StreamBacklog|DecisionsPendingLong"]
receivers:
$receiver
END

unset ALERT_SMTP_PASSWORD
exec "${ALERTMANAGER:-/bin/alertmanager}" --config.file="$folder/alertmanager.yml" "$@"
