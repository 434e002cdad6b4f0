"""The words the model reads, and the one rule that finds its program."""

from sdpo_solve.methods.prompts import Prompter
from sdpo_solve.sandboxes.languages import Toolchain
from sdpo_solve.types import Kind, Problem, TestCase

STDIN = Problem("double", "Double it.", Kind.STDIN, (TestCase("2\n", "4\n", True),))
FUNCTION = Problem("inc", "Add one.", Kind.FUNCTION, (TestCase([1], 2, True),), entry_point="inc")


def content(prompt) -> str:
    return prompt.messages[-1].content


def test_teacher_prompt_follows_the_order_of_table_2() -> None:
    text = content(Prompter().teacher(STDIN, feedback="Wrong Answer", solution=None))
    question = content(Prompter().student(STDIN))
    assert text == (
        f"{question}\n\nThe following is feedback from your unsuccessful earlier attempt:\n\nWrong Answer\n\n"
        "Correctly solve the original question."
    )


def test_a_solution_takes_the_place_of_feedback() -> None:
    text = content(Prompter().teacher(STDIN, feedback="Wrong Answer", solution="print(1)"))
    assert "Correct solution:\n\n```python\nprint(1)\n```" in text
    assert "Wrong Answer" not in text


def test_every_prompt_begins_with_the_same_question() -> None:
    prompter = Prompter(system="Be brief.", thinking=True)
    question = content(prompter.student(FUNCTION))
    prompts = [prompter.teacher(FUNCTION, feedback="f"), prompter.multi_turn(FUNCTION, ["one", "two"])]
    for prompt in prompts:
        assert content(prompt).startswith(question)
        assert prompt.messages[0].content == "Be brief."
        assert prompt.thinking


def test_hidden_and_visible_tests_are_not_in_the_question() -> None:
    assert "4" not in content(Prompter().student(STDIN))


def test_the_language_is_asked_for() -> None:
    text = content(Prompter(language="cpp").student(STDIN))
    assert "C++20" in text
    assert "```cpp" in text


def test_version_and_libraries_of_the_sandbox_are_named() -> None:
    toolchain = Toolchain("Python 3.13", ("numpy", "sortedcontainers"))
    named = content(Prompter(toolchain=toolchain).student(STDIN))
    assert named.startswith("Programs run under Python 3.13; numpy and sortedcontainers are installed.")
    alone = content(Prompter(toolchain=Toolchain("Python 3.13")).student(STDIN))
    assert alone.startswith("Programs run under Python 3.13.\n")
    plain = content(Prompter().student(STDIN))
    assert named.endswith(plain)
    assert alone.endswith(plain)


def test_multi_turn_without_turns_is_the_plain_question() -> None:
    assert Prompter().multi_turn(STDIN, []) == Prompter().student(STDIN)
