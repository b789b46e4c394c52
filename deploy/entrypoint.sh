#!/bin/sh
# Run a command of a container that uses Dagster with the DAGSTER_HOME of its data root.
set -eu
DAGSTER_HOME=$(music-assets home)
export DAGSTER_HOME
exec "$@"
