cd /tmp/Trun; export PYTHONPATH=/tmp/Trun/src UPCALL_DIR=/dev/shm/T
(PYTHONPATH=/tmp/Trun/src timeout 1500 /tmp/bench-venv/bin/python -m upcall.cli storm --peer all --tries 30 --seed 1 --json > /tmp/T/peers.json 2>/tmp/T/peers.err </dev/null) 
for a in "1 1 30 31" "1 2 40 32" "8 2 40 33" "2 8 40 34" "2 4 50 35"; do set -- $a
nice -n 19 timeout 400 /tmp/dev/bin/python fast.py storm --senders $1 --vcores $2 --seconds 60 --rate $3 --seed $4 </dev/null
done
nice -n 19 timeout 900 /tmp/dev/bin/python fast.py storm --seconds 600 --seed 41 </dev/null
