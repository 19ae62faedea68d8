#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "runner/host/host.h"

#define LOOK_S  1
#define PATIENT 3 /* looks in a row; a write to a slow disk may take some */

/* It is this thread that dies of it, and all others with it. */
static void end(int signal_number)
{
    static const struct timespec now = {0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    if (sigtimedwait(&set, NULL, &now) < 0)
        return; /* taken at last */
    signal(signal_number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(signal_number);
}

static void *watch(void *argument)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    int seen[ARRAY_SIZE(numbers)] = {0};
    (void)argument;
    for (;;) {
        sigset_t pending;
        sleep(LOOK_S);
        sigpending(&pending);
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
            seen[i] = sigismember(&pending, numbers[i]) ? seen[i] + 1 : 0;
            if (seen[i] == PATIENT)
                end(numbers[i]);
        }
    }
    return NULL;
}

int host_watch(struct err *err)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e != 0)
        return err_set_errno(err, e, "thread that watches for signals");
    pthread_detach(thread);
    return 0;
}
