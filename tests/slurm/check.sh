#!/usr/bin/env bash
# Run the files of docs/slurm/ on a Slurm cluster of two nodes on this machine (make slurm). It needs root, slurm-wlm and
# munge, and prints what it does. Each sweep is also trained without Slurm, and the tables are compared.
set -euo pipefail
here=$(realpath "$(dirname "$0")") docs=$(realpath "$(dirname "$0")/../../docs/slurm")
"$here/cluster.sh" check
work=$(mktemp -d)
export SLURM_CONF="$work/slurm/slurm.conf" OMP_NUM_THREADS=1 BNBENCH_RUN_CHECKPOINT_EVERY=2s
export RAY_PORT=6399 RAY_TMPDIR="$work/ray"
cd "$work"

# Stop the cluster, also after an error or Ctrl-C. After an error, the logs say more.
end() {
    code=$?
    trap '' INT TERM
    if [ $code != 0 ] && [ $code -lt 128 ]; then tail -n 20 ./*.log slurm/*.log 2> /dev/null || true; fi
    "$here/cluster.sh" stop "$work/slurm" || true
    rm -rf "$work"
    if [ $code != 0 ]; then echo "FAILED, exit code $code: ${case:-the start of the cluster}" >&2; fi
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() {
    case=$1
    printf '\n== %s\n' "$case"
    rm -f ./*.log
}

# A config of two networks, and its sweep without Slurm: name, epochs, seeds.
config() {
    cat > "$1.yaml" << END
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, batch_size: 100, epochs: $2, device: cpu}
grid: {network: [no_batch_norm, batch_norm], seed: {range: $3}}
END
    bnbench run "$1.yaml" --out one --executor inline --quiet > /dev/null
}

shards() { sbatch --parsable --cpus-per-task=1 --time=10 "${@:2}" "$docs/shards.sbatch" "$1.yaml" results; }

# Wait until the tables of a pattern have so many lines.
until_rows() {
    for _ in $(seq 300); do
        if [ "$(cat $2 2> /dev/null | wc -l)" -ge "$1" ]; then return; fi
        sleep 0.2
    done
    echo "the jobs do not train" >&2
    exit 1
}

# Wait until the queue is empty. A job that was requeued waits two minutes, unless it is told to start now.
until_done() {
    for _ in $(seq 300); do
        sleep 2
        waiting=$(squeue --noheader --array --format='%i %T %r' | awk '$2 == "PENDING" && $3 == "BeginTime" { print $1 }')
        # A node refuses a job that it has not yet ended.
        if [ "$waiting" ]; then sleep 3; fi
        for task in $waiting; do
            if [ ! -e "$task.rows" ]; then cat results/*/metrics.csv > "$task.rows"; fi
            scontrol update JobId="$task" StartTime=now
        done
        if [ -z "$(squeue --noheader)" ]; then return; fi
    done
    squeue
    echo "the jobs do not end" >&2
    exit 1
}

# Compare a sweep with the one of this name that was trained here: all but the times.
same() {
    times='s/^\([^,]*,[^,]*,[^,]*,[^,]*,[^,]*,[^,]*,[^,]*\),[^,]*,[^,]*/\1/'
    cmp <(sed "$times" "one/$1/metrics.csv") <(sed "$times" "results/$1/metrics.csv")
    cmp "one/$1/runs.csv" "results/$1/runs.csv"
    cmp "one/$1/config.yaml" "results/$1/config.yaml"
    echo "results/$1: the bytes of a sweep that was trained without Slurm, except for the times"
}

# What a shard of a job says of its interruptions. The rows of the first one must be in the table of the end with their
# times, so those epochs were not trained again.
went_on() {
    for shard in 1 2; do
        table="results/$1.shard-$shard-of-2/metrics.csv" rows="$2_$shard.rows" log="bnbench-$2-$shard.log"
        grep "^interrupted\|from a checkpoint" "$log"
        kept=$(($(grep -cxFf "$rows" "$table") - 1))
        echo "shard $shard: $kept rows of the final table were there at the first interruption"
        if [ "$kept" -lt 1 ]; then exit 1; fi
    done
}

"$here/cluster.sh" start "$work/slurm"
sinfo --version
sinfo

say "shards.sbatch: an array of four jobs, and a job that merges"
config shards 2 8
shards shards --array=1-4
until_done
ls -d results/shards*
tail -n 1 bnbench-merge-*.log
same shards

say "shards.sbatch: the time limit comes before the sweep's end, and each job goes on from its checkpoint"
config limit 800 2
job=$(shards limit --array=1-2 --time=1 --signal=B:USR1@20)
until_done
went_on limit "$job"
tail -n 1 bnbench-merge-*.log
same limit

say "shards.sbatch: the jobs are requeued from outside while they train"
config requeue 100 2
job=$(shards requeue --array=1-2)
until_rows 40 'results/requeue.shard-*/metrics.csv'
scontrol requeue "$job"
until_done
grep -h "are there already" "bnbench-$job"-*.log
tail -n 1 bnbench-merge-*.log
same requeue

say "shards.sbatch: a cancelled job stays cancelled, and the same command finishes its shard"
config cancel 100 2
job=$(shards cancel --array=1-2)
until_rows 40 results/cancel.shard-2-of-2/metrics.csv
scancel "${job}_2"
until_done
tail -n 1 bnbench-merge-*.log
if [ -e results/cancel ] || [ "$(cat "bnbench-$job"-*.log | grep -c "; starting")" != 2 ]; then exit 1; fi
shards cancel --array=1-2
until_done
same cancel

say "ray.sbatch: one allocation of both nodes; the signal of a time limit; the job goes on"
if command -v ray > /dev/null; then
    config ray 150 4
    job=$(sbatch --parsable --nodes=2 --cpus-per-task=1 --time=10 "$docs/ray.sbatch" ray.yaml results)
    until_rows 300 results/ray/metrics.csv
    scancel --batch --signal=USR1 "$job"
    until_done
    grep -h "^interrupted\|from a checkpoint\|results in" "bnbench-ray-$job.log"
    same ray
else
    echo "left out: there is no ray here"
fi

printf '\n== all passed, in %s seconds\n' "$SECONDS"
