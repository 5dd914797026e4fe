#!/usr/bin/env bash
# Runs tests that need the real KCL: the Python first, then what pytest gets. Java is installed where that is possible, the jars are fetched.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
shift
if ! command -v java >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get -o Acquire::Retries=3 install -y -qq openjdk-17-jre-headless >/dev/null
  else
    echo "the KCL needs Java 8 or later; install one" >&2
    exit 1
  fi
fi
command -v npm >/dev/null || { echo "the KCL's Kinesis here needs npm and Node.js; install them" >&2; exit 1; }
"$python" -m tests.kcl.jars
exec "$python" -m pytest -q -o python_files='campaign_*.py' "$@"
