/* A shopping cart in a Dapr state store: a JSON object at `cart/USER`, and, once it is checked out, the same at
 * `order/ID`. The order appears and the cart becomes empty in one transaction, so that nobody finds both or neither.
 *
 * An empty cart stays as `{}`. In Redis a write with an etag succeeds on a key that was deleted, so that of two
 * checkouts both would have an order, and an addition could bring back what was checked out.
 *
 * A store that becomes unavailable ends the program: whether its last write was done, `cart show` tells. */
#include "store.h"

#include <inttypes.h>

static const char USAGE[] = "usage: cart [--store NAME] add USER ITEM COUNT\n"
                            "       cart [--store NAME] checkout USER     prints the key of the order\n"
                            "       cart [--store NAME] show USER\n"
                            "An ITEM is of letters, digits, `-`, `_` and `.`";

static const char ITEM_CHARACTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";

/* How many there are of an item. The name lies in the cart's text, or in the arguments. */
struct entry {
    const char *item;
    size_t length;
    uint32_t count;
};

struct cart {
    char *text;
    struct entry *entries;
    size_t length;
};

static struct entry *find(struct cart *cart, const char *item, size_t length)
{
    for (struct entry *entry = cart->entries; entry != cart->entries + cart->length; entry++)
        if (entry->length == length && memcmp(entry->item, item, length) == 0)
            return entry;
    return NULL;
}

/* The entry of an item, a new one if need be. */
static struct entry *entry_of(struct cart *cart, const char *item, size_t length)
{
    struct entry *entry = find(cart, item, length);
    if (entry)
        return entry;
    struct entry *entries = reallocarray(cart->entries, cart->length + 1, sizeof *entries);
    if (!entries)
        fail("out of memory");
    cart->entries = entries;
    entry = &entries[cart->length++];
    *entry = (struct entry){item, length, 0};
    return entry;
}

/* What follows this character, which may have white space before it; null where it is not there, or text is null. */
static const char *after(const char *text, char character)
{
    if (!text)
        return NULL;
    text += strspn(text, " \t\r\n");
    return *text == character ? text + 1 : NULL;
}

/* Takes `"item":2`, and answers what follows it, or null. */
static const char *take_entry(const char *text, struct cart *cart)
{
    const char *item = after(text, '"');
    if (!item)
        return NULL;
    size_t length = strspn(item, ITEM_CHARACTERS);
    const char *number = after(after(item + length, '"'), ':');
    uint64_t count;
    const char *rest = number ? decimal(number + strspn(number, " \t\r\n"), UINT32_MAX, &count) : NULL;
    if (rest)
        entry_of(cart, item, length)->count = (uint32_t)count;
    return rest;
}

/* Takes an object of numbers; false where the text is something else. */
static bool parse(const char *text, struct cart *cart)
{
    const char *rest = after(text, '{');
    const char *end = after(rest, '}');
    while (rest && !end) {
        rest = take_entry(rest, cart);
        end = after(rest, '}');
        if (!end)
            rest = after(rest, ',');
    }
    return end && end[strspn(end, " \t\r\n")] == '\0';
}

static char *json(const struct cart *cart)
{
    char *text = formatted("{");
    for (size_t index = 0; index < cart->length; index++) {
        const struct entry *entry = &cart->entries[index];
        const char *comma = index == 0 ? "" : ",";
        text = joined(text, formatted("%s\"%.*s\":%" PRIu32, comma, (int)entry->length, entry->item, entry->count));
    }
    return joined(text, formatted("}"));
}

/* What is not there is an empty cart. */
static struct cart cart_of(const char *key, const item_t *seen)
{
    struct cart cart = {.text = exists(seen) ? text_of(seen) : formatted("{}")};
    if (!cart.text || !parse(cart.text, &cart))
        fail("%s is no cart", key);
    return cart;
}

static void cart_free(struct cart *cart)
{
    free(cart->entries);
    free(cart->text);
}

static enum outcome try_to_add(const char *key, const char *item, uint32_t count, store_error_t *error)
{
    item_t seen = must_get(key);
    struct cart cart = cart_of(key, &seen);
    struct entry *entry = entry_of(&cart, item, strlen(item));
    if (entry->count > UINT32_MAX - count)
        fail("too many: %s", item);
    entry->count += count;
    char *value = json(&cart);
    enum outcome outcome = store_set(key, value, 0, &seen, error);
    free(value);
    cart_free(&cart);
    item_free(&seen);
    return outcome;
}

/* Writes the order and empties the cart, if that is still the one that was read. */
static enum outcome try_to_checkout(const char *key, const char *order, store_error_t *error)
{
    const item_t nothing = {0};
    item_t seen = must_get(key);
    struct cart cart = cart_of(key, &seen);
    if (cart.length == 0)
        fail("%s is empty", key);
    dapr_state_state_store_operation_t operations[] = {
        {.tag = DAPR_STATE_STATE_STORE_OPERATION_UPSERT, .val.upsert = set_request(order, cart.text, &nothing)},
        {.tag = DAPR_STATE_STATE_STORE_OPERATION_UPSERT, .val.upsert = set_request(key, "{}", &seen)},
    };
    dapr_state_state_store_transaction_t transaction = {.operations = {operations, 2}};
    enum outcome outcome = outcome_of(dapr_state_state_store_transact(&store_name, &transaction, error), error);
    cart_free(&cart);
    item_free(&seen);
    return outcome;
}

static void add(const char *key, const char *item, uint32_t count)
{
    store_error_t error;
    enum outcome outcome;
    while ((outcome = try_to_add(key, item, count, &error)) == CONFLICT)
        ;
    if (outcome == FAILED)
        fail_with(&error);
}

static void checkout(const char *key)
{
    char *id = random_id();
    char *order = formatted("order/%s", id);
    store_error_t error;
    enum outcome outcome;
    while ((outcome = try_to_checkout(key, order, &error)) == CONFLICT)
        ;
    if (outcome == FAILED)
        fail_with(&error);
    puts(order);
    free(order);
    free(id);
}

static void show(const char *key)
{
    item_t seen = must_get(key);
    struct cart cart = cart_of(key, &seen);
    puts(cart.text);
    cart_free(&cart);
    item_free(&seen);
}

static bool is_item(const char *name)
{
    return *name && !name[strspn(name, ITEM_CHARACTERS)];
}

int main(int argc, char **argv)
{
    char **words;
    int count = take_store(argc, argv, &words);
    if (count < 2)
        fail_with_usage(USAGE);
    char *key = formatted("cart/%s", words[1]);
    if (count == 4 && strcmp(words[0], "add") == 0 && is_item(words[2]))
        add(key, words[2], positive(words[3], USAGE));
    else if (count == 2 && strcmp(words[0], "checkout") == 0)
        checkout(key);
    else if (count == 2 && strcmp(words[0], "show") == 0)
        show(key);
    else
        fail_with_usage(USAGE);
    free(key);
    return 0;
}
