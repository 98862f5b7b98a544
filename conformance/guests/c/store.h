/* What the C guests share: a state store whose every write says what it replaces, strings, and how a program ends.
 *
 * The strings and lists that a request points to stay the caller's. What a call answers, an error too, is on the
 * heap and is freed by the function of its type in command_guest.h. */
#ifndef STORE_H
#define STORE_H

#define _GNU_SOURCE /* vasprintf, getentropy */

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command_guest.h"

/* A value, and the etag of the write that it came with; without an etag the key does not exist. */
typedef dapr_state_state_store_get_response_t item_t;
typedef dapr_state_state_store_error_t store_error_t;

/* What became of a write. */
enum outcome {
    WRITTEN,
    /* Somebody else wrote first, so that nothing was done: read again. */
    CONFLICT,
    /* The error says why. */
    FAILED,
};

/* The Dapr state component. */
static command_guest_string_t store_name;

/* Ends the program with code 1. */
__attribute__((format(printf, 1, 2))) static inline _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline _Noreturn void fail_with_usage(const char *usage)
{
    fprintf(stderr, "%s\n", usage);
    exit(2);
}

static inline _Noreturn void fail_with(const store_error_t *error)
{
    static const char *const classes[] = {
        [DAPR_STATE_STATE_STORE_ERROR_ETAG_MISMATCH] = "etag-mismatch",
        [DAPR_STATE_STATE_STORE_ERROR_ETAG_INVALID] = "etag-invalid",
        [DAPR_STATE_STATE_STORE_ERROR_NOT_FOUND] = "not-found",
        [DAPR_STATE_STATE_STORE_ERROR_INVALID_ARGUMENT] = "invalid-argument",
        [DAPR_STATE_STATE_STORE_ERROR_UNAVAILABLE] = "unavailable",
        [DAPR_STATE_STATE_STORE_ERROR_PERMISSION_DENIED] = "permission-denied",
        [DAPR_STATE_STATE_STORE_ERROR_INTERNAL] = "internal",
    };
    /* Every case has a message, so that it does not matter by which name it is read. */
    command_guest_string_t message = error->val.internal;
    fail("%s: %.*s", classes[error->tag], (int)message.len, (const char *)message.ptr);
}

/* A new string, written as by printf. */
__attribute__((format(printf, 1, 2))) static inline char *formatted(const char *format, ...)
{
    char *text;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        fail("out of memory");
    return text;
}

/* Two strings as a new one in their place. */
static inline char *joined(char *text, char *more)
{
    char *all = formatted("%s%s", text, more);
    free(text);
    free(more);
    return all;
}

/* Reads the digits at `text`, a number up to `most` (at least 9), and answers what follows them, or null. */
static inline const char *decimal(const char *text, uint64_t most, uint64_t *number)
{
    const char *next = text;
    for (*number = 0; *next >= '0' && *next <= '9'; next++) {
        uint64_t digit = (uint64_t)(*next - '0');
        if (*number > (most - digit) / 10)
            return NULL;
        *number = *number * 10 + digit;
    }
    return next == text ? NULL : next;
}

/* An argument that is a number above zero, or ends the program. */
static inline uint32_t positive(const char *word, const char *usage)
{
    uint64_t number;
    const char *rest = decimal(word, UINT32_MAX, &number);
    if (!rest || *rest || number == 0)
        fail_with_usage(usage);
    return (uint32_t)number;
}

static inline uint64_t random_number(void)
{
    uint64_t number;
    if (getentropy(&number, sizeof number))
        fail("no random numbers");
    return number;
}

/* Sixteen hexadecimal digits that nobody else has. */
static inline char *random_id(void)
{
    return formatted("%016llx", (unsigned long long)random_number());
}

/* For the bindings, which only read it. */
static inline command_guest_string_t string(const char *text)
{
    return (command_guest_string_t){(uint8_t *)text, strlen(text)};
}

/* Takes the store's name from the first option, if there is one, and answers the number of words after it. */
static inline int take_store(int argc, char **argv, char ***words)
{
    bool named = argc >= 3 && strcmp(argv[1], "--store") == 0;
    store_name = string(named ? argv[2] : "state");
    int taken = named ? 3 : argc < 1 ? 0 : 1;
    *words = argv + taken;
    return argc - taken;
}

static inline bool exists(const item_t *item)
{
    return item->etag.is_some;
}

static inline void item_free(item_t *item)
{
    dapr_state_state_store_get_response_free(item);
}

/* The value as a new string. Null where that cannot be, because there is a null byte in it. */
static inline char *text_of(const item_t *item)
{
    if (item->data.len > 0 && memchr(item->data.ptr, 0, item->data.len))
        return NULL;
    char *text = malloc(item->data.len + 1);
    if (!text)
        fail("out of memory");
    if (item->data.len > 0)
        memcpy(text, item->data.ptr, item->data.len);
    text[item->data.len] = '\0';
    return text;
}

/* The item is the caller's to free; on false, the error is. */
static inline bool store_get(const char *key, item_t *item, store_error_t *error)
{
    dapr_state_state_store_get_request_t request = {.key = string(key)};
    if (!dapr_state_state_store_get(&store_name, &request, item, error))
        return false;
    /* A plain string in Redis, which is not Dapr's: a write would replace it unseen. */
    if (!exists(item) && item->data.len > 0)
        fail("internal: %s has a value without an etag", key);
    return true;
}

/* For a program that cannot go on without. */
static inline item_t must_get(const char *key)
{
    item_t item;
    store_error_t error;
    if (!store_get(key, &item, &error))
        fail_with(&error);
    return item;
}

/* With the etag of what was seen, or, where nothing was, as a first-write, which is for keys that do not exist. */
static inline dapr_state_state_store_set_request_t set_request(const char *key, const char *value, const item_t *seen)
{
    return (dapr_state_state_store_set_request_t){
        .key = string(key),
        .value = {(uint8_t *)value, strlen(value)},
        .etag = seen->etag,
        .options = {.concurrency = DAPR_STATE_STATE_INTERFACE_CONCURRENCY_FIRST_WRITE},
    };
}

/* Frees the error of a conflict. */
static inline enum outcome outcome_of(bool written, store_error_t *error)
{
    if (written)
        return WRITTEN;
    if (error->tag != DAPR_STATE_STATE_STORE_ERROR_ETAG_MISMATCH)
        return FAILED;
    dapr_state_state_store_error_free(error);
    return CONFLICT;
}

/* After the failed write of a key that was not there: Redis, as Dapr has it, knows no mismatch of a write without an
 * etag. */
static inline enum outcome outcome_of_creation(const char *key, store_error_t *error)
{
    item_t item;
    store_error_t other;
    if (!store_get(key, &item, &other)) {
        dapr_state_state_store_error_free(error);
        *error = other;
        return FAILED;
    }
    bool created = exists(&item);
    item_free(&item);
    if (!created)
        return FAILED;
    dapr_state_state_store_error_free(error);
    return CONFLICT;
}

/* Writes a value in the place of `seen`, what was read there last. It is gone after so many seconds, of which zero
 * stands for ever. */
static inline enum outcome store_set(const char *key, const char *value, uint32_t seconds, const item_t *seen,
                                     store_error_t *error)
{
    dapr_state_state_store_set_request_t request = set_request(key, value, seen);
    char *lifetime = formatted("%u", (unsigned)seconds);
    command_guest_tuple2_string_string_t metadata = {string("ttlInSeconds"), string(lifetime)};
    if (seconds > 0) {
        request.metadata.is_some = true;
        request.metadata.val.ptr = &metadata;
        request.metadata.val.len = 1;
    }
    enum outcome outcome = outcome_of(dapr_state_state_store_set(&store_name, &request, error), error);
    free(lifetime);
    if (outcome == FAILED && error->tag == DAPR_STATE_STATE_STORE_ERROR_INTERNAL && !exists(seen))
        return outcome_of_creation(key, error);
    return outcome;
}

#endif
