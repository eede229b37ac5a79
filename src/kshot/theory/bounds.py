"""The right-hand sides of Theorems 1 and 2 of Zhou et al. (2021), "Z21", and of their relatives for convex losses.

theta* is the initialisation, theta*_T the optimum of task T, theta^q the weights after q gradient steps from theta* at
rate a on K samples D; L is the risk in the population and L_D the risk on the samples.

Theorem 2 bounds the expected population gradient, in which the brackets are INSIDE the norm:

    EPG = E_T |E_D[grad L(theta^q)]|^2  <=  8 G^2 (rho^q - 1)^2 / K^2 + 2 E|grad L_D(theta^q)|^2

The larger E_T E_D |grad L(theta^q)|^2 exceeds the same right-hand side: what an average of K samples deviates by is of
the order 1 / sqrt(K), and cancels only in the mean over D. One step on the tosses of a fair coin shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The bounds for a loss that is G-Lipschitz and L_s-smooth, after q gradient steps at rate a on K samples.

    Attributes
    ----------
    lipschitz
        G.
    smoothness
        L_s.
    rate
        a, at most 1 / L_s.
    shots
        K.
    steps
        q.
    """

    lipschitz: float
    smoothness: float
    rate: float
    shots: int
    steps: int

    @property
    def growth(self) -> float:
        """rho^q - 1 with rho = 1 + 2 a L_s; infinite beyond the range of float64."""
        with np.errstate(over="ignore"):
            return float(np.expm1(self.steps * np.log1p(2 * self.rate * self.smoothness)))

    def generalization(self) -> float:
        """First term of Theorem 1, 2 G^2 (rho^q - 1) / (K L_s): a bound of the risk minus the risk on the samples."""
        return 2 * self.lipschitz**2 * self.growth / (self.shots * self.smoothness)

    def optimization(self, squared_distance: float) -> float:
        """Second term of Theorem 1, `squared_distance` / (2 a): a bound of the excess risk on the samples.

        The distance is E|theta* - theta*_T|^2, from the initialisation to the optima of tasks.
        """
        return squared_distance / (2 * self.rate)

    def expected_gradient(self, empirical_squared_gradient: float) -> float:
        """Theorem 2: a bound of E_T |E_D[grad L]|^2, 8 G^2 (rho^q - 1)^2 / K^2 + 2 E|grad L_D|^2.

        Parameters
        ----------
        empirical_squared_gradient
            E|grad L_D|^2, of the weights after q steps.
        """
        apart = self.lipschitz * self.growth / self.shots
        return 8 * apart * apart + 2 * empirical_squared_gradient

    def convex_generalization(self) -> float:
        """2 a G^2 q / K: a gradient step on a CONVEX loss takes no two points further apart (Hardt et al. 2016)."""
        return 2 * self.rate * self.lipschitz**2 * self.steps / self.shots

    def convex_optimization(self, squared_distance: float) -> float:
        """`squared_distance` / (2 a q), the rate of gradient descent; for q = 0 the term of Theorem 1."""
        return squared_distance / (2 * self.rate * max(self.steps, 1))
