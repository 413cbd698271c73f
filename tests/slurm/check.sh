#!/usr/bin/env bash
# Run the files of docs/slurm/ on a Slurm cluster of two nodes on this machine (make slurm). It needs root, slurm-wlm and
# munge, takes about six minutes, and prints what it does. Without Ray, its part is left out.
set -euo pipefail
here=$(realpath "$(dirname "$0")") docs=$(realpath "$(dirname "$0")/../../docs/slurm")
work=$(mktemp -d)
trap '"$here/cluster.sh" stop "$work/slurm"; rm -rf "$work"' EXIT
export SLURM_CONF="$work/slurm/slurm.conf" OMP_NUM_THREADS=1 BNBENCH_RUN_CHECKPOINT_EVERY=2s
cd "$work"

say() { printf '\n== %s\n' "$1"; }

# Wait until the queue is empty. A job that was requeued waits two minutes, unless it is told to start now.
until_done() {
    for _ in $(seq 150); do
        sleep 2
        waiting=$(squeue --noheader --array --format='%i %T %r' | awk '$2 == "PENDING" && $3 == "BeginTime" { print $1 }')
        for job in $waiting; do scontrol update JobId="$job" StartTime=now; done
        if [ -z "$(squeue --noheader)" ]; then return; fi
    done
    squeue
    tail -n 20 ./*.log
    echo "the jobs do not end" >&2
    exit 1
}

# Compare a sweep with the one of this name that was trained here: all but the times, and the logs of both.
same() {
    times='s/^\([^,]*,[^,]*,[^,]*,[^,]*,[^,]*,[^,]*,[^,]*\),[^,]*,[^,]*/\1/'
    cmp <(sed "$times" "one/$1/metrics.csv") <(sed "$times" "results/$1/metrics.csv")
    cmp "one/$1/runs.csv" "results/$1/runs.csv"
    cmp "one/$1/config.yaml" "results/$1/config.yaml"
    echo "results/$1: the bytes of a sweep that was trained without Slurm"
}

# A config of two networks: name, epochs, seeds.
config() {
    cat > "$1.yaml" << END
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, batch_size: 100, epochs: $2, device: cpu}
grid: {network: [no_batch_norm, batch_norm], seed: {range: $3}}
END
    bnbench run "$1.yaml" --out one --executor inline --quiet > /dev/null
}

"$here/cluster.sh" start "$work/slurm"
sinfo --version
sinfo

say "shards.sbatch: an array of four jobs, and a job that merges"
config shards 2 8
sbatch --array=1-4 --cpus-per-task=1 --time=10 "$docs/shards.sbatch" shards.yaml results
until_done
ls -d results/shards*
tail -n 1 bnbench-merge-*.log
same shards

say "shards.sbatch: the time limit comes before the sweep's end, and the job starts again"
config limit 200 2
rm -f ./*.log
sbatch --array=1-2 --cpus-per-task=1 --time=2 --signal=B:TERM@90 "$docs/shards.sbatch" limit.yaml results
until_done
grep -h "interrupted\|are there already" bnbench-*.log
tail -n 1 bnbench-merge-*.log
same limit

say "shards.sbatch: jobs are requeued while they train"
config requeue 40 2
rm -f ./*.log
job=$(sbatch --parsable --array=1-2 --cpus-per-task=1 --time=10 "$docs/shards.sbatch" requeue.yaml results)
until [ "$(cat results/requeue.shard-*/metrics.csv 2> /dev/null | wc -l)" -gt 10 ]; do sleep 0.5; done
scontrol requeue "$job"
until_done
grep -h "interrupted\|are there already" bnbench-*.log
tail -n 1 bnbench-merge-*.log
same requeue

if command -v ray > /dev/null; then
    say "ray.sbatch: one allocation of both nodes"
    config ray 2 4
    rm -f ./*.log
    RAY_PORT=6399 sbatch --nodes=2 --cpus-per-task=1 --time=10 "$docs/ray.sbatch" ray.yaml results
    until_done
    grep -h "trained on\|results in" bnbench-ray-*.log results/ray/run.log
    same ray
fi

say "all passed"
