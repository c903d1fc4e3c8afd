#!/usr/bin/env bash
# Puts a new deployment beside the one that serves, and moves the requests to it step by step.
#
#   rollout.sh ENDPOINT LIVE NEW.yml REQUEST.json
#
# ENDPOINT sends all its requests to the deployment LIVE. NEW.yml declares another one of the same
# endpoint; REQUEST.json is a request that both answer. Whatever goes wrong, or a signal, takes the
# requests back to LIVE and deletes the new deployment; the exit code is then 1. When all went well
# NEW has all requests; LIVE is kept, for a rollback by hand.
#
# On another machine than the workspace's, set INFERAY_URL, INFERAY_TOKEN and INFERAY_CA.
# STEPS="10 50 100" are percentages, REQUESTS=100 the requests at each of them, CHECK a command that
# reads an answer and fails if it is not good.
set -euo pipefail

if [ $# -ne 4 ]; then
  echo "usage: $0 ENDPOINT LIVE NEW.yml REQUEST.json" >&2
  exit 2
fi
endpoint=$1 live=$2 file=$3 request=$4
steps=${STEPS:-10 50 100}
requests=${REQUESTS:-100}
check=${CHECK:-true}

say() { echo "[rollout] $*"; }

# Prints the name that a deployment's YAML declares, if all of it is right.
validate() {
  python - "$1" "$endpoint" <<'PYTHON'
import sys
from inferay.engine.resources import OnlineDeployment, load
from inferay.errors import InvalidInput

try:
    print(load(OnlineDeployment, sys.argv[1], endpoint_name=sys.argv[2]).entity.name)
except InvalidInput as error:
    sys.exit(f"error: {error.message}")
PYTHON
}

# Sends requests and checks each answer: score COUNT [CURL-ARGUMENT…]
score() {
  local count=$1 status
  shift
  for ((sent = 1; sent <= count; sent++)); do
    : >"$folder/headers" >"$folder/answer"
    status=$(curl --silent --show-error --max-time 60 --cacert "$ca" --config <(credentials) \
      --header "Content-Type: application/json" --data-binary "@$request" \
      --dump-header "$folder/headers" --output "$folder/answer" --write-out "%{http_code}" \
      "$@" "$uri") || true   # then it is 000, and curl has said why
    if [ "$status" != 200 ]; then
      say "request $sent of $count was answered $status by" \
        "'$(answered_by)': $(head -c 500 "$folder/answer")"
      return 1
    fi
    if ! bash -c "$check" <"$folder/answer" >"$folder/check" 2>&1; then
      say "request $sent of $count got a wrong answer from" \
        "'$(answered_by)': $(head -c 500 "$folder/answer")"
      return 1
    fi
    answered_by >>"$folder/answered"
  done
}

# The key, for curl: on its command line every user of the machine could read it.
credentials() { echo "header = \"Authorization: Bearer $key\""; }

answered_by() { sed -n 's/^azureml-model-deployment: *\([^[:space:]]*\).*/\1/Ip' "$folder/headers"; }

traffic() {
  inferay online-endpoint update --name "$endpoint" --traffic "$1" --output none
}

# Whatever ends this script, ends here.
finish() {
  rm -rf "$folder"
  if $has_begun && ! $is_done; then
    say "rolling back: all requests go to '$live'"
    traffic "$live=100" || say "the requests could not be taken back"
    inferay online-deployment delete --name "$new" --endpoint-name "$endpoint" --yes \
      && say "'$new' was deleted" || say "'$new' was not deleted"
    exit 1
  fi
}

folder=$(mktemp -d)
has_begun=false is_done=false
trap finish EXIT
trap 'exit 1' INT TERM

new=$(validate "$file")
say "$file is valid; it declares '$new'"

read -r share uri < <(inferay online-endpoint show --name "$endpoint" --output tsv \
  --query "[[traffic.\"$live\" || \`0\`, scoring_uri]]") || exit 3
if [ "$share" != 100 ]; then
  say "'$live' gets $share % of the requests of '$endpoint', and not all; nothing was changed"
  exit 1
fi
if inferay online-deployment show --name "$new" --endpoint-name "$endpoint" --output none \
    2>/dev/null; then
  say "'$endpoint' has a deployment '$new' already; nothing was changed"
  exit 1
fi
key=$(inferay online-endpoint get-credentials --name "$endpoint" \
  --query "primaryKey || accessToken" --output tsv)
ca=${INFERAY_CA:-${INFERAY_HOME:-$HOME/.inferay}/tls/ca.pem}

has_begun=true
say "deploying '$new' without traffic"
inferay online-deployment create --file "$file" --endpoint-name "$endpoint" --output none

say "testing '$new' by its name"
score 5 --header "azureml-model-deployment: $new"

for percent in $steps; do
  traffic "$live=$((100 - percent)) $new=$percent"
  : >"$folder/answered"
  score "$requests"
  say "$percent %: '$new' answered $(grep --count --line-regexp "$new" "$folder/answered" || true)" \
    "of $requests requests, none failed"
done
is_done=true
say "done: '$new' gets all requests; '$live' still runs"
