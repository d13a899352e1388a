"""Training that is stopped goes on to the same bits; what lies in its folder is never lost unasked."""

import shutil

import pytest
from runs import train_tiny

from AnomalyCLIP_lib import InputError
from pipeline.training import learning

EPOCHS = ("--epoch", "4")


@pytest.fixture
def train(tiny_files, tiny_dataset, tmp_path):
    def run(name, *flags):
        return train_tiny(tiny_files, tiny_dataset, tmp_path / name, *EPOCHS, *flags)

    return run


def files(folder):
    """All that a training leaves, but for its log, which holds times."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*.*") if path.name != "log.txt"}


def stop_at(patch, step):
    steps = []
    original = learning.training_step

    def step_or_stop(*arguments):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        return original(*arguments)

    patch.setattr(learning, "training_step", step_or_stop)


@pytest.mark.parametrize(
    "flags", [[], ["--feature_cache", "off"], ["--workers", "2"]], ids=["cached", "off", "workers"]
)
@pytest.mark.parametrize("step", [1, 3, 5, 9])  # three steps an epoch
def test_a_stopped_training_ends_with_the_same_bits(train, tmp_path, monkeypatch, step, flags):
    assert train("whole", *flags) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", *flags)
    assert train("stopped", *flags, "--resume") == 0
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert not (tmp_path / "stopped" / ".run" / "training.pt").exists()


def test_stopped_between_the_last_epoch_and_its_thresholds(train, tmp_path, monkeypatch):
    assert train("whole") == 0

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(learning, "find_thresholds", killed)
        with pytest.raises(KeyboardInterrupt):
            train("stopped")
    assert not (tmp_path / "stopped" / "epoch_4.pth").exists()  # it would pass for the result
    assert train("stopped", "--resume") == 0
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_a_finished_training_does_nothing(train, tmp_path, capsys, monkeypatch):
    assert train("out") == 0
    before = files(tmp_path / "out")
    monkeypatch.setattr(learning, "training_step", None)
    assert train("out", "--resume") == 0
    assert "nothing to do" in capsys.readouterr().out and files(tmp_path / "out") == before
    with pytest.raises(InputError, match=r"epoch_4\.pth.*--overwrite"):  # another training
        train("out", "--resume", "--seed", "5")
    assert files(tmp_path / "out") == before


def test_other_settings_cannot_go_on(train, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train("out")
    with pytest.raises(InputError, match=r"--resume is impossible.*learning_rate"):
        train("out", "--resume", "--learning_rate", "0.5")
    with pytest.raises(InputError, match="contradicts"):
        train("out", "--resume", "--overwrite")


def test_a_damaged_state_is_named(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train("out")
    state = tmp_path / "out" / ".run" / "training.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(InputError, match=r"training\.pt is damaged"):
        train("out", "--resume")


def test_checkpoints_are_never_replaced_unasked(train, tmp_path):
    assert train("out") == 0
    before = files(tmp_path / "out")
    with pytest.raises(InputError, match=r"epoch_1\.pth.*--resume.*--overwrite"):
        train("out", "--seed", "7")
    with pytest.raises(InputError, match="--init_from"):
        train("out", "--overwrite", "--init_from", str(tmp_path / "out" / "epoch_4.pth"))
    assert files(tmp_path / "out") == before
    assert train("out", "--overwrite", "--epoch", "1") == 0
    assert [path.name for path in (tmp_path / "out").glob("*.pth")] == ["epoch_1.pth"]


def test_checkpoints_of_somebody_else_stay(train, tmp_path):
    """As the authors' own script, which saves into the folder of their released prompts."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "epoch_15.pth").write_bytes(b"released")
    for flags in ([], ["--overwrite"], ["--resume"]):
        with pytest.raises(InputError, match=r"epoch_15\.pth"):
            train("out", *flags)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["epoch_15.pth"]


def test_prompts_of_a_stopped_training_say_so(train, tmp_path):
    from AnomalyCLIP_lib.checkpoint import read_checkpoint

    assert train("out") == 0
    assert read_checkpoint(tmp_path / "out" / "epoch_4.pth").notices == []
    assert "epoch 2 of a training of 4" in read_checkpoint(tmp_path / "out" / "epoch_2.pth").notices[0]


def test_pictures_do_not_end_a_training(train, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.training.progress.loss_curves", full)
    assert train("out") == 0
    assert "Training goes on" in (tmp_path / "out" / "log.txt").read_text()


def test_the_label_comes_from_the_folder_or_has_to_be_given(tiny_files, tiny_dataset, tmp_path, monkeypatch):
    import train as command

    model = ["--backbone", str(tiny_files / "tiny.json"), "--pretrained", str(tiny_files / "tiny.safetensors")]
    flags = [*model, "--device", "cpu", "--workers", "0", "--epoch", "1"]
    with pytest.raises(InputError, match="--dataset is needed"):
        command.main(["--train_data_path", str(tiny_dataset), *flags])
    shutil.copytree(tiny_dataset, tmp_path / "VisA_20220922")
    monkeypatch.setattr("pipeline.training.train_run.CHECKPOINTS", tmp_path / "checkpoints")
    assert command.main(["--train_data_path", str(tmp_path / "VisA_20220922"), *flags]) == 0
    assert (tmp_path / "checkpoints" / "trained_on_visa" / "epoch_1.pth").is_file()
