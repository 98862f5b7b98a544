/* Adds to a number in a Dapr state store, one at a time, while others do the same: nothing is lost and nothing is
 * counted twice, also where the store goes away between a write and its answer.
 *
 * A write says what it replaces, by the etag, so that it has its effect once or never. Whether it had it, the value
 * itself tells: while a counter is at work, the value also holds how much that counter has added. So there is one
 * answer to a conflict, to a lost answer and to success: read again, and write what is still missing. In the end the
 * counter removes its note; a number that nobody adds to is a plain decimal. */
#include "store.h"

#include <inttypes.h>
#include <time.h>

static const char USAGE[] = "usage: counter [--store NAME] KEY TIMES";

/* How often in a row the store may be unavailable: some twelve seconds. */
enum { MOST_FAILURES = 16 };

struct counter {
    const char *key;
    const char *id;
    uint32_t times;
    uint64_t conflicts;
};

/* `42`, or `42 4f1c=12 90ab=7`: the number, and of each counter at work its id and how much of it is its own. */
struct tally {
    uint64_t total;
    /* What this counter has added. */
    uint32_t own;
    /* The notes of the others, each after a space. */
    char *others;
};

/* False where there is nothing to change. */
typedef bool change_t(struct tally *tally, const struct counter *counter);

static bool add(struct tally *tally, const struct counter *counter)
{
    if (tally->own >= counter->times)
        return false;
    tally->own++;
    tally->total++;
    return true;
}

static bool remove_note(struct tally *tally, const struct counter *counter)
{
    (void)counter;
    bool noted = tally->own > 0;
    tally->own = 0;
    return noted;
}

/* Takes a note such as `4f1c=12`, and answers what follows it, or null. */
static const char *take_note(const char *note, const char *id, struct tally *tally)
{
    size_t length = strcspn(note, " =");
    uint64_t count;
    const char *rest = note[length] == '=' ? decimal(note + length + 1, UINT32_MAX, &count) : NULL;
    if (!rest)
        return NULL;
    if (length == strlen(id) && memcmp(note, id, length) == 0)
        tally->own = (uint32_t)count;
    else
        tally->others = joined(tally->others, formatted(" %.*s", (int)(rest - note), note));
    return rest;
}

/* False where the text is none. `others` is the caller's to free in any case. */
static bool parse(const char *text, const char *id, struct tally *tally)
{
    /* One can be added to what is below the greatest number. */
    const char *rest = decimal(text, UINT64_MAX - 1, &tally->total);
    while (rest && *rest == ' ')
        rest = take_note(rest + 1, id, tally);
    return rest && !*rest;
}

static struct tally tally_of(const item_t *item, const struct counter *counter)
{
    struct tally tally = {.others = formatted("%s", "")};
    if (!exists(item))
        return tally;
    char *text = text_of(item);
    if (!text || !parse(text, counter->id, &tally))
        fail("%s is no number that can be added to", counter->key);
    free(text);
    return tally;
}

static char *written_out(const struct tally *tally, const struct counter *counter)
{
    char *text = formatted("%" PRIu64 "%s", tally->total, tally->others);
    return tally->own == 0 ? text : joined(text, formatted(" %s=%" PRIu32, counter->id, tally->own));
}

/* Longer each time, up to `longest` milliseconds, and never quite the same for two counters. */
static void wait_a_while(uint32_t attempt, uint64_t shortest, uint64_t longest)
{
    uint64_t most = shortest << (attempt < 16 ? attempt : 16);
    if (most > longest)
        most = longest;
    uint64_t milliseconds = most / 2 + random_number() % most;
    struct timespec time = {.tv_sec = (time_t)(milliseconds / 1000), .tv_nsec = (long)(milliseconds % 1000 * 1000000)};
    nanosleep(&time, NULL);
}

/* Writes a changed value. Sets `settled` instead where there is nothing to change, with the number that is there. */
static enum outcome step(const struct counter *counter, change_t *change, bool *settled, uint64_t *total,
                         store_error_t *error)
{
    item_t seen;
    if (!store_get(counter->key, &seen, error))
        return FAILED;
    struct tally tally = tally_of(&seen, counter);
    enum outcome outcome = WRITTEN;
    *settled = !change(&tally, counter);
    *total = tally.total;
    if (!*settled) {
        char *value = written_out(&tally, counter);
        outcome = store_set(counter->key, value, 0, &seen, error);
        free(value);
    }
    free(tally.others);
    item_free(&seen);
    return outcome;
}

/* Changes the value until there is nothing more to change, and answers the number. */
static uint64_t settle(struct counter *counter, change_t *change)
{
    uint64_t total = 0;
    uint32_t conflicts = 0, failures = 0;
    for (bool settled = false; !settled;) {
        store_error_t error;
        switch (step(counter, change, &settled, &total, &error)) {
        case WRITTEN:
            conflicts = failures = 0;
            break;
        case CONFLICT:
            counter->conflicts++;
            failures = 0;
            wait_a_while(++conflicts, 1, 50);
            break;
        case FAILED:
            if (error.tag != DAPR_STATE_STATE_STORE_ERROR_UNAVAILABLE || failures == MOST_FAILURES)
                fail_with(&error);
            dapr_state_state_store_error_free(&error);
            wait_a_while(++failures, 50, 1000);
            break;
        }
    }
    return total;
}

int main(int argc, char **argv)
{
    char **words;
    if (take_store(argc, argv, &words) != 2)
        fail_with_usage(USAGE);
    char *id = random_id();
    struct counter counter = {.key = words[0], .id = id, .times = positive(words[1], USAGE)};
    settle(&counter, add);
    uint64_t total = settle(&counter, remove_note);
    printf("value: %" PRIu64 "\nconflicts: %" PRIu64 "\n", total, counter.conflicts);
    free(id);
    return 0;
}
