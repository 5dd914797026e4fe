/* ISO 8601 text to numbers: the forms of stream/transform/values.py, except those on which readers differ. */

#include "plan.h"

static const int64_t SECOND = 1000000;

/* ``count`` digits as a number, or -1. */
static int digits(const uint8_t *text, int count) {
    int value = 0;
    for (int place = 0; place < count; place++) {
        uint8_t digit = (uint8_t)(text[place] - '0');
        if (digit > 9) return -1;
        value = value * 10 + digit;
    }
    return value;
}

int read_day(const uint8_t *text, size_t size, int32_t *days) {
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (size < 10 || text[4] != '-' || text[7] != '-') return 0;
    int year = digits(text, 4), month = digits(text + 5, 2), day = digits(text + 8, 2);
    if (year < 1 || month < 1 || month > 12 || day < 1) return 0;
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > lengths[month - 1] + (month == 2 && leap)) return 0;
    /* If years begin in March, the leap day is the last day. */
    int from = month > 2 ? year : year - 1, shifted = month > 2 ? month - 3 : month + 9;
    *days = from * 365 + from / 4 - from / 100 + from / 400 + (shifted * 153 + 2) / 5 + day - 719469;
    return 1;
}

int read_stamp(const uint8_t *text, size_t size, int64_t *micros) {
    const uint8_t *at = text + 10, *end = text + size;
    int32_t days;
    int64_t fraction = 0;
    int second = 0, places = 0, offset = 0;
    if (!read_day(text, size, &days)) return 0;
    *micros = (int64_t)days * 86400 * SECOND;
    if (at == end) return 1;
    if ((*at != 'T' && *at != ' ') || end - at < 6 || at[3] != ':') return 0;
    int hour = digits(at + 1, 2), minute = digits(at + 4, 2);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59) return 0;
    at += 6;
    if (end - at >= 3 && *at == ':') {
        second = digits(at + 1, 2);
        /* Some readers accept 60 as a leap second. */
        if (second < 0 || second > 59) return 0;
        at += 3;
        if (at < end && *at == '.') {
            at++;
            for (; at < end && (uint8_t)(*at - '0') < 10; at++, places++)
                if (places < 6) fraction = fraction * 10 + (*at - '0');
            if (places < 1 || places > 9) return 0;
            for (int place = places; place < 6; place++) fraction *= 10;
            /* Digits after the microseconds are truncated, which is ambiguous before 1970. */
            if (places > 6 && days < 0) return 0;
        }
    }
    if (at < end && (*at | 32) == 'z') at++;
    else if (at < end && (*at == '+' || *at == '-')) {
        int west = *at == '-', hours, minutes = 0;
        if (end - at < 3) return 0;
        hours = digits(at + 1, 2);
        at += 3;
        if (at < end) {
            at += *at == ':';
            if (end - at < 2) return 0;
            minutes = digits(at, 2);
            at += 2;
        }
        if (hours < 0 || hours > 18 || minutes < 0 || minutes > 59) return 0;
        offset = (hours * 60 + minutes) * (west ? -60 : 60);
    }
    if (at != end) return 0;
    *micros += (hour * 3600 + minute * 60 + second - offset) * SECOND + fraction;
    return *micros >= -62135596800000000 && *micros <= 253402300799999999;
}
