#!/usr/bin/env bash
# Runs once, on PostgreSQL's first start: a database and an owner for Headgate, and the same for MLflow.
set -euo pipefail

make_database() {
    # psql quotes the values; the password comes by the environment because arguments can be seen by others.
    OWNER=$1 OWNER_PASSWORD=$2 psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
\getenv owner OWNER
\getenv password OWNER_PASSWORD
CREATE ROLE :"owner" LOGIN PASSWORD :'password';
CREATE DATABASE :"owner" OWNER :"owner" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"owner" FROM PUBLIC;
SQL
}

make_database headgate "$HEADGATE_DB_PASSWORD"
make_database mlflow "$MLFLOW_DB_PASSWORD"
