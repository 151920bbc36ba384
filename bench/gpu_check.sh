#!/usr/bin/env bash
# Everything that needs a GPU, from a checkout, in under nine minutes: the GPU tests, the bars, other packages on the same
# inputs, a real training step beside its plan, the stages beside the same on the CPU, and a profile of the kernels. The
# most valuable comes first, and every step has its own limit and writes JSON when it ends, so that an early end loses
# little. It installs and downloads nothing and changes no setting of the device. A step that fails or exceeds its limit
# does not stop the others; the exit code is then 1.
#
#     bench/gpu_check.sh [--results DIRECTORY]     python3 must have torch and triton, or set PYTHON
#     bench/gpu_check.sh --rehearse [...]          every step at toy size without a GPU, in Triton's interpreter
#
# It writes DIRECTORY/*-gpu.jsonl (bench/results by default; a rehearsal takes a temporary one) and nothing else in the
# checkout. Without a GPU it loads the package, prints that it skips the rest, and exits 0.
set -uo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
results=
rehearsal=
while [ $# -gt 0 ]; do
  case $1 in
    --rehearse) rehearsal=1 ;;
    --results) results=${2:?--results needs a directory} && shift ;;
    *) echo "gpu_check.sh: unknown option $1 (--rehearse, --results DIRECTORY)" >&2 && exit 2 ;;
  esac
  shift
done

# A copy, so that nothing else is written to the checkout.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
if [ -n "$rehearsal" ]; then
  export SSDFAST_REHEARSAL=1 TRITON_INTERPRET=1 CUDA_VISIBLE_DEVICES="" HIP_VISIBLE_DEVICES=""
  results=${results:-$tree/results}
fi
results=${results:-$checkout/bench/results}
mkdir -p "$results" && results=$(cd "$results" && pwd) || exit 1
cp -r "$checkout"/{ssdfast,kernels,tests,bench,pyproject.toml} "$tree"
cd "$tree" || exit 1
export PYTHONPATH=$tree${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 SSDFAST_RESULTS=$results
if git_dir=$(git -C "$checkout" rev-parse --absolute-git-dir 2>/dev/null); then
  export GIT_DIR=$git_dir GIT_WORK_TREE=$checkout # a record names the commit
fi

failed=0
summary=()

# step LIMIT_S NAME COMMAND...    the limits add up to less than nine minutes
step() {
  local limit=$1 name=$2 start=$SECONDS code=0 result
  shift 2
  [ -z "$rehearsal" ] || limit=$((10 * limit)) # the interpreter is slow
  printf '\n== %s (at most %s s)\n' "$name" "$limit"
  timeout --kill-after=5 "$limit" "$@" || code=$?
  case $code in
    0) result=ok ;;
    124 | 137) result="exceeded its limit" ;;
    *) result="failed ($code)" ;;
  esac
  [ "$code" = 0 ] || failed=1
  summary+=("$(printf '%-28s %-20s %4d s' "$name" "$result" $((SECONDS - start)))")
  printf '{"step": "%s", "result": "%s", "seconds": %d}\n' "$name" "$result" $((SECONDS - start)) >>"$results/steps-gpu.jsonl"
}

loaded='import torch, ssdfast.kernels as k; print(torch.__version__, k.__file__, k.probe_stats.backends())'
has_gpu='import sys, torch; sys.exit(not torch.cuda.is_available())'
rm -f "$results"/*-gpu.jsonl # the table at the end is of this run
step 30 "package loads" "$python" -c "$loaded"
if [ "$failed" = 0 ] && [ -z "$rehearsal" ] && ! timeout 30 "$python" -c "$has_gpu"; then
  rm -f "$results/steps-gpu.jsonl"
  printf '\nThis machine has no GPU that torch can use: its tests and benchmarks are skipped.\n'
  exit 0
fi

step 15 "rates of the device" "$python" bench/rates.py
step 115 "GPU tests" "$python" bench/gpu_tests.py --seconds "$([ -n "$rehearsal" ] && echo 1000 || echo 105)"
step 35 "bars probe_stats" "$python" bench/claims.py probe-stats
step 45 "bars linear_probe_stats" "$python" bench/claims.py linear
step 25 "bars soft_label_ce" "$python" bench/claims.py loss
step 40 "peers probe_stats" "$python" bench/probe_stats.py --seconds 2
step 45 "peers linear_probe_stats" "$python" bench/linear_probe_stats.py --seconds 2
step 30 "peers soft_label_ce" "$python" bench/soft_label_ce.py --seconds 2
step 80 "training step" "$python" bench/training_step.py
step 40 "stages, GPU beside CPU" "$python" bench/stages.py
step 25 "profile" "$python" bench/profile_kernels.py

printf '\n== results in %s\n' "$results"
timeout 10 "$python" bench/report.py --short --results "$results" || failed=1
printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
