package api

import "github.com/labstack/echo/v4"

// registerAdmin adds the routes of the admin and issuer API.
func (a *API) registerAdmin(*echo.Echo) {}
