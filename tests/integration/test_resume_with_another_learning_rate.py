"""A run that is resumed with another learning rate trains with that one."""

from tests.integration import recipe


def test_the_new_learning_rate_counts_from_the_first_step_on(world, tmp_path):
    run_dir = tmp_path / "run"
    run = [*recipe.write_inputs(tmp_path), f"run_dir={run_dir}", "training.train_iters=8"]
    run.append("optimizer.lr_decay_style=constant")
    stop = [*run, "training.exit_interval=4"]
    assert world.run(2, recipe.pretrain_here, stop, joined=False) == [4, 4]
    world.run(2, recipe.pretrain_here, [*run, "optimizer.lr=1e-3"], joined=False)
    rates = [row["learning_rate"] for row in recipe.rows(run_dir).values()]
    assert rates[3:] == [5e-3, 1e-3, 1e-3, 1e-3, 1e-3]
