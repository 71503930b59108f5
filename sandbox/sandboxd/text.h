/* Texts that grow, and JSON in them. Without memory the process ends: whoever waits for it is told that. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct text {
    char *bytes;
    size_t size, room;
};

static void *or_die(void *memory) {
    if (memory == NULL)
        _exit(1);
    return memory;
}

static void add_bytes(struct text *text, const void *bytes, size_t size) {
    if (text->size + size > text->room) {
        text->room = 2 * (text->size + size);
        text->bytes = or_die(realloc(text->bytes, text->room));
    }
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

static void add(struct text *text, const char *words) {
    add_bytes(text, words, strlen(words));
}

static char *joined(const char *format, ...) {
    char *result;
    va_list arguments;
    va_start(arguments, format);
    int size = vasprintf(&result, format, arguments);
    va_end(arguments);
    return size < 0 ? or_die(NULL) : result;
}

static void add_number(struct text *text, unsigned long long number) {
    char digits[24], *first = digits + sizeof digits;
    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    add_bytes(text, first, (size_t)(digits + sizeof digits - first));
}

static void add_quoted(struct text *text, const char *name) {
    char escape[8];
    add(text, "\"");
    for (; *name != '\0'; name++) {
        if (*name == '"' || *name == '\\' || (unsigned char)*name < ' ')
            add_bytes(text, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", *name));
        else
            add_bytes(text, name, 1);
    }
    add(text, "\"");
}

/* Whether it is UTF-8: shortest forms alone, no surrogates, nothing beyond U+10FFFF. */
static bool is_text(const char *name) {
    const unsigned char *at = (const unsigned char *)name;
    while (*at != '\0') {
        int more = *at < 0x80 ? 0 : *at >= 0xC2 && *at < 0xE0 ? 1 : *at >= 0xE0 && *at < 0xF0 ? 2 : 3;
        unsigned char low = *at == 0xE0 ? 0xA0 : *at == 0xF0 ? 0x90 : 0x80;
        unsigned char high = *at == 0xED ? 0x9F : *at == 0xF4 ? 0x8F : 0xBF;
        if (more == 3 && (*at < 0xF0 || *at > 0xF4))
            return false;
        for (at++; more > 0; more--, at++, low = 0x80, high = 0xBF)
            if (*at < low || *at > high)
                return false;
    }
    return true;
}
