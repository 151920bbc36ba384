#!/usr/bin/env bash
# Everything that needs a GPU, from a checkout, in under nine minutes: the GPU tests, then every benchmark and claim at
# full size. It installs and downloads nothing, writes bench/results/*-gpu.jsonl and nothing else in the checkout, and ends
# with a short table. A step that fails or exceeds its time limit does not stop the others; the exit code is then 1.
#
#     bench/gpu_check.sh            python3 must have torch and triton, or set PYTHON
#
# Without a GPU it loads the package, prints that it skips the rest, and exits 0.
set -uo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

# A copy, so that nothing else is written to the checkout.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cp -r "$checkout"/{ssdfast,kernels,tests,bench,pyproject.toml} "$tree"
rm -rf "$tree/bench/results"
mkdir -p "$checkout/bench/results"
ln -s "$checkout/bench/results" "$tree/bench/results"
cd "$tree" || exit 1
export PYTHONPATH=$tree PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
if git_dir=$(git -C "$checkout" rev-parse --absolute-git-dir 2>/dev/null); then
  export GIT_DIR=$git_dir GIT_WORK_TREE=$checkout # a record names the commit
fi

failed=0
summary=()

# step LIMIT_S NAME COMMAND...    the limits add up to less than nine minutes
step() {
  local limit=$1 name=$2 start=$SECONDS code=0 result
  shift 2
  printf '\n== %s (at most %s s)\n' "$name" "$limit"
  timeout --kill-after=5 "$limit" "$@" || code=$?
  case $code in
    0) result=ok ;;
    124 | 137) result="exceeded its limit" ;;
    *) result="failed ($code)" ;;
  esac
  [ "$code" = 0 ] || failed=1
  summary+=("$(printf '%-28s %-20s %4d s' "$name" "$result" $((SECONDS - start)))")
}

step 30 "package loads" "$python" -c 'import torch, ssdfast.kernels as k; print(torch.__version__, k.__file__, k.probe_stats.backends())'
if [ "$failed" = 0 ] && ! timeout 30 "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  printf '\nThis machine has no GPU that torch can use: its tests and benchmarks are skipped.\n'
  exit 0
fi

rm -f bench/results/*-gpu.jsonl # the table at the end is of this run
# Only files with GPU tests are collected: the others may need packages that are not here.
mapfile -t tests < <(grep -l 'from \.gpu import' tests/kernels/test_*.py)
step 150 "GPU tests" "$python" -m pytest -q -p no:cacheprovider -m gpu "${tests[@]}"
step 75 "bench probe_stats" "$python" bench/probe_stats.py --seconds 3
step 90 "bench linear_probe_stats" "$python" bench/linear_probe_stats.py --seconds 3
step 40 "bench soft_label_ce" "$python" bench/soft_label_ce.py --seconds 3
step 60 "bench scaling" "$python" bench/scaling.py
step 45 "claims probe-stats" "$python" bench/claims.py probe-stats
step 45 "claims linear" "$python" bench/claims.py linear

printf '\n== results\n'
timeout 10 "$python" bench/report.py --short || failed=1
printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
