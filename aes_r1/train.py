"""Cold start -> RAPO -> evaluation -> report: `python -m aes_r1.train +experiment=rapo`."""

from aes_r1.trainer.stopping import leave_when_told


def main() -> None:
    leave_when_told()  # before the imports, which take seconds
    from aes_r1 import command
    from aes_r1.trainer.pipeline import run

    command.run("aes_r1.train", run)


if __name__ == "__main__":
    main()
