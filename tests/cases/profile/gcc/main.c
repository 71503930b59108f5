#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *work(void *argument) {
    puts("thread");
    return argument;
}

int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    pthread_join(thread, NULL);
    free(malloc(9));
    return 0;
}
