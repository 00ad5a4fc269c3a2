"""BenchMARL's MAPPO on mpe2's simple_spread. It runs in BenchMARL's own environment, not in twinloop's.

    pip install benchmarl==1.5.2 'torchrl<0.12' 'tensordict<0.12' mpe2==1.1.1

Takes one JSON argument, prints one line ``RESULT {...}``. What the two libraries share is equal: steps, epochs,
minibatches, learning rate, discount, clip, entropy, network widths. The rest is BenchMARL's own.
"""
# ruff: noqa: D103, T201  (a script that runs where twinloop does not)

import copy
import json
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")

import torch  # noqa: E402 - after the filter
from benchmarl.algorithms import MappoConfig  # noqa: E402
from benchmarl.environments.common import Task, TaskClass  # noqa: E402, F401
from benchmarl.experiment import Callback, Experiment, ExperimentConfig  # noqa: E402
from benchmarl.models.mlp import MlpConfig  # noqa: E402
from mpe2 import simple_spread_v3  # noqa: E402
from torchrl.envs import PettingZooWrapper  # noqa: E402


def make(settings):
    return simple_spread_v3.parallel_env(
        N=settings["n_agents"],
        max_cycles=settings["horizon"],
        local_ratio=settings["local_ratio"],
        continuous_actions=False,
    )


class Spread(TaskClass):
    """simple_spread through TorchRL's wrapper; the critic sees the joined observations, BenchMARL's default."""

    settings: dict

    def get_env_fun(self, num_envs, continuous_actions, seed, device):
        agents = [f"agent_{k}" for k in range(self.settings["n_agents"])]
        return lambda: PettingZooWrapper(
            make(self.settings), return_state=False, group_map={"agents": agents}, use_mask=False, seed=seed
        )

    def supports_continuous_actions(self):
        return False

    def supports_discrete_actions(self):
        return True

    def has_render(self, env):
        return False

    def max_steps(self, env):
        return self.settings["horizon"]

    def group_map(self, env):
        return env.group_map

    def state_spec(self, env):
        return None

    def action_mask_spec(self, env):
        return None

    def info_spec(self, env):
        return None

    def observation_spec(self, env):
        spec = env.full_observation_spec_unbatched.clone()
        for key in list(spec.keys(True, True)):
            if key != ("agents", "observation"):
                del spec[key]
        return spec

    def action_spec(self, env):
        return env.full_action_spec_unbatched

    @staticmethod
    def env_name():
        return "mpe2"


def play(policy, settings):
    """Mean return of an agent over episodes, without exploration, on the episodes of the baselines."""
    from tensordict import TensorDict
    from torchrl.envs.utils import ExplorationType, set_exploration_type

    env, agents = make(settings), [f"agent_{k}" for k in range(settings["n_agents"])]
    total = 0.0
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        for episode in range(settings["episodes"]):
            seen, _ = env.reset(seed=1_000_000 + episode)
            while env.agents:
                stacked = torch.stack([torch.as_tensor(seen[a], dtype=torch.float32) for a in agents])
                group = TensorDict({"observation": stacked[None]}, (1, len(agents)))
                out = policy(TensorDict({"agents": group}, (1,)))
                action = out["agents", "action"][0]
                if action.ndim == 2:
                    action = action.argmax(-1)
                seen, reward, *_ = env.step({a: int(action[k]) for k, a in enumerate(agents)})
                total += sum(reward.values()) / len(agents)
    return total / settings["episodes"]


def main():
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    started = time.process_time()
    algorithm = MappoConfig.get_from_yaml()
    algorithm.share_param_critic = True
    algorithm.clip_epsilon = settings["clip"]
    algorithm.entropy_coef = settings["entropy_coefficient"]
    algorithm.lmbda = settings["gae_lambda"]
    frames = settings["replicas"] * settings["steps"]
    config = ExperimentConfig.get_from_yaml()
    config.lr, config.gamma = settings["lr"], settings["gamma"]
    config.clip_grad_norm, config.clip_grad_val = True, settings["max_grad_norm"]
    config.on_policy_collected_frames_per_batch = frames
    config.on_policy_n_envs_per_worker = settings["replicas"]
    config.on_policy_n_minibatch_iters = settings["epochs"]
    config.on_policy_minibatch_size = frames // settings["minibatches"]
    config.max_n_iters, config.max_n_frames = -(-settings["joint_steps"] // frames), None
    config.evaluation, config.render, config.loggers, config.create_json = False, False, [], False
    config.checkpoint_interval, config.save_folder = 0, tempfile.mkdtemp()
    config.prefer_continuous_actions = False
    network = MlpConfig(num_cells=settings["hidden"], activation_class=torch.nn.Tanh, layer_class=torch.nn.Linear)
    task = Spread("spread", {})
    task.settings = settings
    experiment = Experiment(
        task=task,
        algorithm_config=algorithm,
        model_config=network,
        critic_model_config=copy.deepcopy(network),
        seed=settings["seed"],
        config=config,
        callbacks=[Callback()],
    )
    experiment.run()
    result = {
        "return": play(experiment.policy, settings),
        "agent_steps": config.max_n_iters * frames * settings["n_agents"],
        "cpu_s": time.process_time() - started,
    }
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
