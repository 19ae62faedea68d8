/* One reconcile: gather, plan, carry out (children first, status last), asynchronously. On the
 * control thread. */
#pragma once

#include "controller/controller.h"

/* Begins work on a profile taken from the queue; reconcile_done() of the controller ends it. */
void reconcile_start(struct tracked *t);
/* Cancels the request under way; for destruction only. */
void reconcile_abort(struct tracked *t);

/* Called once at the end of each: failed asks for another try with back-off; look_again_ms as in
 * struct plan. */
void controller_reconciled(struct tracked *t, bool failed, int64_t look_again_ms,
                           int64_t duration_ms);
