"""The exercises of the course: one for each chapter, which say themselves what is wrong.

python -m tinyrnn.learn list
python -m tinyrnn.learn start bptt      # puts exercises/04_bptt.py into your folder; open it, and write
python -m tinyrnn.learn check bptt      # says what is right, and what is wrong, in words
python -m tinyrnn.learn hint bptt       # one more each time
python -m tinyrnn.learn solution bptt
"""
