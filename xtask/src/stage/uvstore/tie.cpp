#include "tie.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#ifdef _WIN32
#include <windows.h>
#else
#include <csignal>
#include <cerrno>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tie {

#ifdef _WIN32

namespace {
// The system ends what is in a job when the job's last handle closes: this one is the other process's.
void job_of(HANDLE process) {
  const HANDLE job = CreateJobObjectW(nullptr, nullptr);
  JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits{};
  limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
  HANDLE theirs = nullptr;
  if (job != nullptr && SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits) &&
      DuplicateHandle(GetCurrentProcess(), job, process, &theirs, 0, FALSE, DUPLICATE_SAME_ACCESS)) {
    AssignProcessToJobObject(job, GetCurrentProcess());
  }
  if (job != nullptr) {
    CloseHandle(job);
  }
}
} // namespace

void to(long process) {
  const HANDLE other = OpenProcess(SYNCHRONIZE | PROCESS_DUP_HANDLE, FALSE, static_cast<DWORD>(process));
  if (other == nullptr) {
    throw std::runtime_error("there is no process " + std::to_string(process) + " that a server could be tied to");
  }
  job_of(other);
  // Where it may be in no job, the server sees to it itself.
  std::thread([other] {
    WaitForSingleObject(other, INFINITE);
    TerminateProcess(GetCurrentProcess(), 0);
  }).detach();
}

#else

namespace {
// Not the parent-death signal: the kernel sends that when the *thread* ends which started the program.
bool ended(int handle, long process) {
  if (handle >= 0) {
    pollfd poller{handle, POLLIN, 0};
    const int n = poll(&poller, 1, -1);
    return n > 0;
  }
  // Kernels before 5.3, and sandboxes that refuse the call.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  return kill(static_cast<pid_t>(process), 0) != 0 && errno == ESRCH;
}
} // namespace

void to(long process) {
  int handle = -1;
#ifdef SYS_pidfd_open
  handle = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
#endif
  // Asked after the handle is there: the number cannot belong to another process by now.
  if (getppid() != process) {
    throw std::runtime_error("process " + std::to_string(process) + " did not start this one, or is gone");
  }
  const pid_t child = fork();
  if (child < 0) {
    throw std::runtime_error("fork failed");
  }
  if (child > 0) {
    _exit(0);
  }
  // Ctrl-C is for the ranks. A session of its own would also be a share of the processor of its own, and a small one
  // on a busy machine.
  setpgid(0, 0);
  if (chdir("/") != 0) {
    // then it stays where it is
  }
  std::thread([handle, process] {
    while (!ended(handle, process)) {
    }
    _exit(0);
  }).detach();
}

#endif

} // namespace tie
