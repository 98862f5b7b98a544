/* A session in a Dapr state store: a token at `session/USER`, which the store forgets when its time is over.
 *
 * A session that is closed stays for a while, as an empty value. In Redis a write with an etag succeeds on a key that
 * was deleted, so that a touch at the same time could open it again. */
#include "store.h"

static const char USAGE[] = "usage: session [--store NAME] open USER SECONDS      prints the token of the session\n"
                            "       session [--store NAME] touch USER SECONDS     from now\n"
                            "       session [--store NAME] show USER\n"
                            "       session [--store NAME] close USER";

/* Longer than a touch takes. */
enum { SECONDS_AFTER_CLOSE = 60 };

static bool is_open(const item_t *item)
{
    return exists(item) && item->data.len > 0;
}

/* Writes the token in the place of what was seen, which it frees; false where somebody else wrote first. */
static bool replace(const char *key, const char *token, uint32_t seconds, item_t *seen)
{
    store_error_t error;
    enum outcome outcome = store_set(key, token, seconds, seen, &error);
    if (outcome == FAILED)
        fail_with(&error);
    item_free(seen);
    return outcome == WRITTEN;
}

/* Only one of several that open the same session at once succeeds. */
static void open_session(const char *key, uint32_t seconds)
{
    char *token = random_id();
    item_t seen;
    do {
        seen = must_get(key);
        if (is_open(&seen))
            fail("%s is open already", key);
    } while (!replace(key, token, seconds, &seen));
    puts(token);
    free(token);
}

static item_t must_be_open(const char *key)
{
    item_t item = must_get(key);
    if (!is_open(&item))
        fail("there is no %s", key);
    return item;
}

static void touch(const char *key, uint32_t seconds)
{
    bool written;
    do {
        item_t seen = must_be_open(key);
        char *token = text_of(&seen);
        if (!token)
            fail("%s is no session", key);
        written = replace(key, token, seconds, &seen);
        free(token);
    } while (!written);
}

static void close_session(const char *key)
{
    item_t seen;
    do {
        seen = must_get(key);
        if (!is_open(&seen)) {
            item_free(&seen);
            return;
        }
    } while (!replace(key, "", SECONDS_AFTER_CLOSE, &seen));
}

static void show(const char *key)
{
    item_t item = must_be_open(key);
    fwrite(item.data.ptr, 1, item.data.len, stdout);
    putchar('\n');
    item_free(&item);
}

int main(int argc, char **argv)
{
    char **words;
    int count = take_store(argc, argv, &words);
    if (count < 2)
        fail_with_usage(USAGE);
    char *key = formatted("session/%s", words[1]);
    if (count == 3 && strcmp(words[0], "open") == 0)
        open_session(key, positive(words[2], USAGE));
    else if (count == 3 && strcmp(words[0], "touch") == 0)
        touch(key, positive(words[2], USAGE));
    else if (count == 2 && strcmp(words[0], "show") == 0)
        show(key);
    else if (count == 2 && strcmp(words[0], "close") == 0)
        close_session(key);
    else
        fail_with_usage(USAGE);
    free(key);
    return 0;
}
