import numpy as np

from multistage.compiled import compiled


def test_each_named_type_is_compiled_at_once_and_no_other_later():
    @compiled("i8(i8)", "f8(f8)")
    def twice(x):
        return 2 * x

    assert [twice(21), twice(0.25)] == [42, 0.5]
    assert len(twice.signatures) == 2
    assert twice(np.float32(0.25)) == 0.5  # taken as one of the two, not compiled anew
    assert len(twice.signatures) == 2


def test_a_function_without_a_place_for_its_machine_code_is_compiled_all_the_same():
    names = {}
    exec("def twice(x):\n    return 2 * x", names)
    assert compiled("i8(i8)")(names["twice"])(21) == 42
