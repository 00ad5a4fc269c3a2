"""How policies come about and are judged: runs, rollouts, evaluation, benchmarks."""
