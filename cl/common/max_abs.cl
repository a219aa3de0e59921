/* result = max |x_i|, Inf where any x_i is NaN or Inf; of complex numbers, x are their parts. A maximum has no
 * rounding, so any order will do.
 *
 * Each group of 256 leaves its own maximum in result[group]; a second launch with one group takes the
 * maximum of those.
 */

#define ITEMS 256

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void max_abs(long count, REAL_VECTOR(x), REAL_VECTOR(result))
{
    __local real largest[ITEMS];
    const int id = get_local_id(0);

    real mine = 0;
    for (long k = get_global_id(0); k < count; k += get_global_size(0)) {
        const real value = fabs(ELEMENT(x, k));
        mine = value <= REAL_MAX ? fmax(mine, value) : (real)INFINITY; /* NaN is not <= anything */
    }
    largest[id] = mine;
    for (int half_ = ITEMS / 2; half_ > 0; half_ /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (id < half_)
            largest[id] = fmax(largest[id], largest[id + half_]);
    }
    if (id == 0)
        ELEMENT(result, get_group_id(0)) = largest[0];
}

#undef ITEMS
