"""What parents are worth to a search: trials until a warm run is where a cold one is after 50.

    [STRATEGY=TPE] python3 benches/warm_start.py SEARCH_BENCHMARK TUNESMITH [SEEDS [TASK ...]]

STRATEGY is Bayesian where not said. SEARCH_BENCHMARK is the folder of the search benchmark (its tasks.py needs numpy),
TUNESMITH the binary. Where: within a hundredth of the way from a median random point to the best value of the cold run.
Parents are 50 trials of Bayesian search, whatever learns from them, on the task shifted by about 0.03 of every range (good),
by about 0.3 (far), and turned upside down (misleading). Beside them stands a run without parents with another seed: no
information is worth 1.
"""

import json
import os
import subprocess
import sys

import numpy as np

sys.path.insert(0, sys.argv[1])
from tasks import get_tasks  # noqa: E402

BINARY, SEEDS, ONLY = sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 6, sys.argv[4:]
TRIALS, CAP = 50, 76
STRATEGY = os.environ.get("STRATEGY", "Bayesian")
TASKS = ONLY or [
    "branin", "hartmann6", "rosenbrock4", "styblinski_tang5", "log_bowl5", "misscaled3", "mixed_ackley6",
    "cat_pairwise6x4", "ml_krr_diabetes", "ml_svm_digits", "ml_xgb_diabetes",
]  # fmt: skip


def run(task, f, seed, trials, parent=None, goal=None, strategy=STRATEGY):
    """The trials of one run, which ends early where it reaches `goal`."""
    create = {
        "op": "create", "strategy": strategy, "seed": seed, "max_trials": trials, "max_parallel": 1,
        "objective": {"Type": task.type, "MetricName": task.metric}, "ranges": task.space.ranges(),
    }  # fmt: skip
    if parent is not None:
        create["warm_start"] = {"WarmStartType": "TransferLearning", "parents": [{"trials": parent}]}
    done = []
    with subprocess.Popen([BINARY, "ask-tell"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def say(**request):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if "error" in answer:
                raise SystemExit(answer["error"])
            return answer

        say(**create)
        for _ in range(trials):
            trial = say(op="ask")
            value = f(task.space.parse(trial["params"]))
            done.append({"params": trial["params"], "value": value})
            say(op="tell", trial_id=trial["trial_id"], value=value)
            if goal is not None and task.sign() * value <= goal:
                break
        process.stdin.close()
    return done


def shifted(task, size, seed):
    """The task with its numbers moved by about `size` of their ranges, to and fro, reflected at the ends."""
    rng = np.random.default_rng(seed)
    by = rng.choice([-1, 1], task.space.d) * size * rng.uniform(0.5, 1.5, task.space.d)
    by *= [p["kind"] != "Categorical" for p in task.space.params]

    def f(x):
        u = task.space.to_unit(x) + by
        return float(task.f(task.space.from_unit(np.where(u < 0, -u, np.where(u > 1, 2 - u, u)))))

    return f


def measure(task, seed):
    """Trials needed without parents, and with each kind of parent."""
    plain = lambda x: float(task.f(x))  # noqa: E731
    losses = lambda trials: [task.sign() * trial["value"] for trial in trials]  # noqa: E731
    cold = losses(run(task, plain, 1000 + seed, TRIALS))
    rng = np.random.default_rng(0)
    typical = task.sign() * np.median([task.f(task.space.sample(rng)) for _ in range(64)])
    goal = min(cold) + 0.01 * (typical - min(cold))
    needed = lambda losses: next((n for n, loss in enumerate(losses, 1) if loss <= goal), CAP + 1)  # noqa: E731
    parents = {
        "good": shifted(task, 0.03, seed),
        "far": shifted(task, 0.3, seed),
        "misleading": lambda x: -plain(x),
    }
    out = {"cold": needed(cold), "other seed": needed(losses(run(task, plain, 2000 + seed, CAP, goal=goal)))}
    for at, (kind, f) in enumerate(parents.items()):
        parent = run(task, f, 3000 + 100 * at + seed, TRIALS, strategy="Bayesian")
        out[kind] = needed(losses(run(task, plain, 1000 + seed, CAP, parent, goal)))
    return out


ratios = {}
by_id = {task.id: task for task in get_tasks("public", "sf")}
for name in TASKS:
    runs = [measure(by_id[name], seed) for seed in range(SEEDS)]
    medians = {kind: np.median([run[kind] for run in runs]) for kind in runs[0]}
    print(f"{name:20}", "  ".join(f"{kind} {median:g}" for kind, median in medians.items()), flush=True)
    for kind, median in medians.items():
        ratios.setdefault(kind, []).append(median / medians["cold"])
for kind, values in ratios.items():
    print(f"{kind:12} of the cold run's trials: geometric mean {np.exp(np.mean(np.log(values))):.2f}, median {np.median(values):.2f}")
