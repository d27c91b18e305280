import time, cProfile, pstats
from server_faults.test_server_crashes import once, pair, NAMES
def test_x(new, pair):
    for i in range(2):
        t=time.time(); place=new(f"place{i}"); print("new",time.time()-t)
        t=time.time(); place.stored(pair[0]); print("stored",time.time()-t)
        pr=cProfile.Profile(); pr.enable()
        t=time.time(); place.ingest(pair[1], on_step=once("look", place.cut)); print("ingest+cut",time.time()-t)
        pr.disable()
        t=time.time(); place.state(NAMES); print("state",time.time()-t)
        t=time.time(); place.leftovers(); print("left",time.time()-t)
    pstats.Stats(pr).sort_stats("cumtime").print_stats(35)
