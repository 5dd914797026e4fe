#!/usr/bin/env bash
# Installs LocalStack into an environment of its own, and runs the system tests against it with the Python given first.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
shift
home=$PWD/.make/localstack

# LocalStack needs Python 3.13, which need not be the one that runs the service.
find_python() {
  local candidate
  for candidate in "${LOCALSTACK_BASE_PYTHON:-}" python3 python3.13 "$HOME"/.pyenv/versions/3.13.*/bin/python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 13) <= sys.version_info < (3, 14))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  echo "LocalStack needs Python 3.13 and none was found; install one, or name it in LOCALSTACK_BASE_PYTHON" >&2
  return 1
}

command -v npm >/dev/null || { echo "LocalStack's Kinesis needs npm and Node.js; install them" >&2; exit 1; }
stamp=$home/installed-$(sha256sum requirements/localstack.txt | cut -c1-16)
if [ ! -e "$stamp" ]; then
  rm -rf "$home"
  mkdir -p "$home"
  uv=$(dirname "$python")/uv
  "$uv" venv --quiet --python "$(find_python)" "$home/venv"
  "$uv" pip install --quiet --python "$home/venv/bin/python" --require-hashes -r requirements/localstack.txt
  touch "$stamp"
fi
# Each file has a LocalStack of its own, and most of the time one of them waits for an alert.
LOCALSTACK_PYTHON=$home/venv/bin/python exec "$python" -m pytest -q -n 3 --dist loadfile -o python_files='campaign_*.py' tests/localstack "$@"
