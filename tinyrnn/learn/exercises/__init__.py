"""The exercises, one file each: `chapter_NN_name.py`. To add one, write a file.

Above the line `# ---- … checks` stands what the learner will have written: a docstring whose first line is the title
and the rest the task; imports; functions, each with a docstring of its arguments and shapes. The learner gets the same,
but for what the functions do. Below it stand

    HINTS    a tuple of texts, each of which says a little more
    check_…  functions of the learner's module, in the order in which they are told, with a docstring of one line.
             Each raises a Mistake; `agree` of `checking.py` raises one that names a known mistake.

A check compares with what tinyrnn itself computes, where it has the thing, and with the solution above where not. Every
known mistake is made once in `tests/test_learn.py`.
"""
