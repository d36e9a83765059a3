import mmap
import subprocess
import sys

# large pieces of memory, each freed before the next one is asked for, as of a file's chunks; and pages of 2 MB
WORK = """
import mmap, resource, sys

if sys.argv[1] == "kept":
    from orders_pipeline.infrastructure.process_memory import keep_freed_memory
    keep_freed_memory()
    keep_freed_memory()


def faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def freed():
    for _ in range(20):
        bytes(40 << 20).upper()


def huge():
    with mmap.mmap(-1, 64 << 20) as pages:
        pages.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, len(pages), mmap.PAGESIZE):
            pages[at] = 1


freed()
print(faults(freed), faults(huge))
"""
PAGES = (40 << 20) // mmap.PAGESIZE


def _faults(how):
    done = subprocess.run([sys.executable, "-c", WORK, how], check=True, capture_output=True, text=True)
    return map(int, done.stdout.split())


def test_memory_that_is_freed_serves_again_in_pages_of_the_usual_size():
    freed, huge = _faults("kept")
    assert freed < PAGES  # of twenty times as many
    assert huge >= PAGES


def test_else_the_system_clears_its_pages_each_time():
    freed, _ = _faults("given back")
    assert freed >= 10 * PAGES
