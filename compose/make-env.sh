#!/usr/bin/env bash
# Writes .env beside this script with fresh random secrets, readable by its owner only. It never changes one that is
# there: the databases keep the passwords of their first start.
set -euo pipefail
cd "$(dirname "$0")"

if [[ -e .env ]]; then
    echo "compose/.env is there already and stays as it is." >&2
    exit 1
fi

# Letters and digits only: they stand in URLs.
make_secret() {
    local text
    text=$(od -An -N32 -tx1 /dev/urandom)
    printf '%s' "${text//[[:space:]]/}"
}

# A Fernet key: 32 bytes in the base64 of URLs.
make_key() {
    head -c 32 /dev/urandom | base64 | tr '+/' '-_'
}

umask 077
draft=$(mktemp .env.XXXXXX)
trap 'rm -f "$draft"' EXIT
{
    echo "# Secrets of this stack, made by make-env.sh. Whoever reads this file owns the stack."
    # The folder's name would be a poor one.
    echo "COMPOSE_PROJECT_NAME=headgate"
    for name in POSTGRES_PASSWORD HEADGATE_DB_PASSWORD MLFLOW_DB_PASSWORD REDIS_PASSWORD MINIO_PASSWORD \
        WEBHOOK_SECRET VARIANT_TOKEN; do
        echo "$name=$(make_secret)"
    done
    echo "WEBHOOK_ENCRYPTION_KEY=$(make_key)"
} >"$draft"
# A link, not a move: of two calls at once, one wins and the other fails.
ln "$draft" .env
echo "Wrote compose/.env."
